//! Query parameters: one struct per endpoint, the same for the server that parses and the client that encodes.
//!
//! Parsing follows the daemon that clients were written against, which is Go's: unknown parameters are ignored, the
//! first of several values counts where one is meant, and every text but a few is a true boolean. Numbers, times and
//! filters that do not parse are errors that name the parameter.

mod value;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::Filters;
use crate::filters::FiltersError;
use value::Value;
pub use value::{ParseTimeError, UnixTime};

/// Most parameters accepted in one query.
const MAX_PARAMETERS: usize = 1024;

/// What RFC 3986 calls unreserved stays as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The parameters of one endpoint.
pub trait Query: Default {
    /// Parses what follows the `?`.
    ///
    /// # Errors
    /// A parameter that is malformed, by its name.
    fn parse(query: &str) -> Result<Self, QueryError>;

    /// The query, without `?`; parameters with their default value are left out.
    fn encode(&self) -> String;
}

/// A query that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Percent-escapes that are not UTF-8 text, or hold NUL.
    #[error("the query holds a parameter that is not text")]
    Encoding,
    /// More parameters than any client sends.
    #[error("the query has more than {MAX_PARAMETERS} parameters")]
    TooMany,
    /// A parameter that does not parse.
    #[error("invalid value for the query parameter {name}: {value:?} is not {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// Filters that do not parse.
    #[error("invalid value for the query parameter filters")]
    Filters(#[source] FiltersError),
}

/// Decoded pairs of a query, in order.
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn parse(query: &str) -> Result<Self, QueryError> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(QueryError::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    fn take<T: Value>(&self, name: &'static str) -> Result<T, QueryError> {
        let values: Vec<&str> =
            self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
        if values.is_empty() { Ok(T::default()) } else { T::parse(name, &values) }
    }
}

/// Decodes `application/x-www-form-urlencoded` text.
fn decode(text: &str) -> Result<String, QueryError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| QueryError::Encoding)?;
    if decoded.contains('\0') { Err(QueryError::Encoding) } else { Ok(decoded.into_owned()) }
}

fn append<T: Value>(query: &mut String, name: &str, value: &T) {
    for text in value.encode() {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(&text, ESCAPED));
    }
}

/// Declares structs whose fields are query parameters: `field: Type = "parameter"`.
macro_rules! queries {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty = $parameter:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Query for $name {
            fn parse(query: &str) -> Result<Self, QueryError> {
                let pairs = Pairs::parse(query)?;
                Ok(Self { $($field: pairs.take($parameter)?,)* })
            }

            fn encode(&self) -> String {
                let mut query = String::new();
                $(append(&mut query, $parameter, &self.$field);)*
                query
            }
        }
    )*};
}

queries! {
    /// `GET /containers/json`.
    ListContainers {
        /// Containers that do not run, too.
        all: bool = "all",
        /// Only this many, the newest.
        limit: Option<i64> = "limit",
        /// Compute `SizeRw` and `SizeRootFs`.
        size: bool = "size",
        /// Which containers.
        filters: Filters = "filters",
    }

    /// `POST /containers/create`.
    CreateContainer {
        /// The container's name; one is made up when absent.
        name: Option<String> = "name",
        /// `os[/arch[/variant]]` of the image to choose.
        platform: Option<String> = "platform",
    }

    /// `GET /containers/{id}/json`.
    InspectContainer {
        /// Compute `SizeRw` and `SizeRootFs`.
        size: bool = "size",
    }

    /// `POST /containers/{id}/start`.
    StartContainer {
        /// The sequence that detaches, such as `ctrl-p,ctrl-q`.
        detach_keys: Option<String> = "detachKeys",
        /// A checkpoint to restore from.
        checkpoint: Option<String> = "checkpoint",
    }

    /// `POST /containers/{id}/stop` and `/restart`.
    StopContainer {
        /// The signal instead of the container's stop signal.
        signal: Option<String> = "signal",
        /// Seconds until SIGKILL; negative waits for ever.
        timeout: Option<i64> = "t",
    }

    /// `POST /containers/{id}/kill`.
    KillContainer {
        /// The signal, SIGKILL when absent.
        signal: Option<String> = "signal",
    }

    /// `POST /containers/{id}/rename`.
    RenameContainer {
        /// The new name.
        name: String = "name",
    }

    /// `POST /containers/{id}/wait`.
    WaitContainer {
        /// `not-running` (the default), `next-exit` or `removed`.
        condition: Option<String> = "condition",
    }

    /// `DELETE /containers/{id}`.
    RemoveContainer {
        /// Remove the anonymous volumes as well.
        volumes: bool = "v",
        /// Kill it first when it runs.
        force: bool = "force",
        /// Remove the link and not the container.
        link: bool = "link",
    }

    /// `GET /containers/{id}/logs`.
    ContainerLogs {
        /// Go on with what the container writes from now on.
        follow: bool = "follow",
        /// Standard output.
        stdout: bool = "stdout",
        /// Standard error.
        stderr: bool = "stderr",
        /// Nothing older.
        since: Option<UnixTime> = "since",
        /// Nothing newer.
        until: Option<UnixTime> = "until",
        /// Put a timestamp before each line.
        timestamps: bool = "timestamps",
        /// Only this many of the last lines, or `all`.
        tail: Option<String> = "tail",
        /// Put attributes before each line.
        details: bool = "details",
    }

    /// `POST /containers/{id}/attach`.
    AttachContainer {
        /// The sequence that detaches.
        detach_keys: Option<String> = "detachKeys",
        /// Begin with what was logged so far.
        logs: bool = "logs",
        /// Stay attached.
        stream: bool = "stream",
        /// Standard input.
        stdin: bool = "stdin",
        /// Standard output.
        stdout: bool = "stdout",
        /// Standard error.
        stderr: bool = "stderr",
    }

    /// `POST /containers/{id}/resize` and `/exec/{id}/resize`.
    Resize {
        /// Rows.
        height: u16 = "h",
        /// Columns.
        width: u16 = "w",
    }

    /// `GET /containers/{id}/top`.
    ContainerTop {
        /// Arguments for ps(1), `-ef` when absent.
        ps_args: Option<String> = "ps_args",
    }

    /// `GET /containers/{id}/stats`.
    ContainerStats {
        /// A reading each second (the default) instead of one.
        stream: Option<bool> = "stream",
        /// With `stream` off: do not wait a second for a previous reading.
        one_shot: bool = "one-shot",
    }

    /// `GET`, `HEAD` and `PUT /containers/{id}/archive`.
    ContainerArchive {
        /// The path in the container.
        path: String = "path",
        /// On extraction: a directory may not replace a file, nor a file a directory.
        no_overwrite_dir_non_dir: bool = "noOverwriteDirNonDir",
        /// On extraction: keep the archive's owners.
        copy_uid_gid: bool = "copyUIDGID",
    }

    /// `POST /containers/prune`, `/images/prune`, `/networks/prune` and `/volumes/prune`.
    Prune {
        /// Which objects.
        filters: Filters = "filters",
    }

    /// `GET /images/json`.
    ListImages {
        /// Intermediate images, too.
        all: bool = "all",
        /// Which images.
        filters: Filters = "filters",
        /// Compute `SharedSize`.
        shared_size: bool = "shared-size",
        /// Digests of the manifests.
        digests: bool = "digests",
        /// One entry for each platform.
        manifests: bool = "manifests",
    }

    /// `POST /commit`.
    CommitContainer {
        /// The container.
        container: Option<String> = "container",
        /// The image's name.
        repo: Option<String> = "repo",
        /// Its tag.
        tag: Option<String> = "tag",
        /// Why, for its history.
        comment: Option<String> = "comment",
        /// Who made it.
        author: Option<String> = "author",
        /// Freeze the container meanwhile; that is the default.
        pause: Option<bool> = "pause",
        /// Dockerfile instructions to apply.
        changes: Vec<String> = "changes",
    }

    /// `POST /images/create`: pull or import.
    CreateImage {
        /// The image to pull.
        from_image: Option<String> = "fromImage",
        /// The URL to import from, `-` for the request's body.
        from_src: Option<String> = "fromSrc",
        /// The name for an import.
        repo: Option<String> = "repo",
        /// The tag or digest to pull; the tag for an import.
        tag: Option<String> = "tag",
        /// The commit message for an import.
        message: Option<String> = "message",
        /// Dockerfile instructions to apply to an import.
        changes: Vec<String> = "changes",
        /// `os[/arch[/variant]]` to pull.
        platform: Option<String> = "platform",
    }

    /// `GET /images/{name}/json`.
    InspectImage {
        /// Describe every manifest of an index.
        manifests: bool = "manifests",
        /// The platform to describe, as JSON.
        platform: Option<String> = "platform",
    }

    /// `POST /images/{name}/push`.
    PushImage {
        /// The tag to push.
        tag: Option<String> = "tag",
        /// The platform to push, as JSON.
        platform: Option<String> = "platform",
    }

    /// `POST /images/{name}/tag`.
    TagImage {
        /// The repository.
        repo: String = "repo",
        /// The tag, `latest` when absent.
        tag: Option<String> = "tag",
    }

    /// `DELETE /images/{name}`.
    RemoveImage {
        /// Remove it although stopped containers use it or it has several names.
        force: bool = "force",
        /// Keep untagged parents.
        no_prune: bool = "noprune",
    }

    /// `GET /images/get` and `/images/{name}/get`.
    SaveImages {
        /// The images.
        names: Vec<String> = "names",
        /// The platform, as JSON.
        platform: Option<String> = "platform",
    }

    /// `POST /images/load`.
    LoadImages {
        /// No progress details.
        quiet: bool = "quiet",
        /// The platform, as JSON.
        platform: Option<String> = "platform",
    }

    /// `GET /events`.
    Events {
        /// Begin with past events from this time on.
        since: Option<UnixTime> = "since",
        /// End at this time.
        until: Option<UnixTime> = "until",
        /// Which events.
        filters: Filters = "filters",
    }

    /// `GET /system/df`.
    SystemDiskUsage {
        /// Any of `container`, `image`, `volume` and `build-cache`; all when empty.
        types: Vec<String> = "type",
    }

    /// `GET /system/check` and `POST /system/check`, which only Brig has.
    SystemCheck {
        /// Hash the content of images, too.
        content: bool = "content",
    }

    /// `GET /networks`.
    ListNetworks {
        /// Which networks.
        filters: Filters = "filters",
    }

    /// `GET /networks/{id}`.
    InspectNetwork {
        /// Details of services.
        verbose: bool = "verbose",
        /// Only networks of this scope.
        scope: Option<String> = "scope",
    }

    /// `GET /volumes`.
    ListVolumes {
        /// Which volumes.
        filters: Filters = "filters",
    }

    /// `GET /volumes/{name}/export`.
    ExportVolume {
        /// `none` or `zstd`; none when empty.
        compression: String = "compression",
    }

    /// `DELETE /volumes/{name}`.
    RemoveVolume {
        /// Succeed when it does not exist.
        force: bool = "force",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_parse_with_gos_leniency() {
        let logs = ContainerLogs::parse(
            "follow=1&stdout=true&stderr=no&timestamps=None&tail=10&since=12.5&x=y&follow=0&&details",
        )
        .unwrap();
        assert_eq!(
            logs,
            ContainerLogs {
                follow: true,
                stdout: true,
                tail: Some("10".into()),
                since: Some(UnixTime { seconds: 12, nanoseconds: 500_000_000 }),
                ..ContainerLogs::default()
            }
        );
    }

    #[test]
    fn malformed_parameters_are_refused_by_name() {
        let message = |error: QueryError| error.to_string();
        let error = message(StopContainer::parse("t=soon").unwrap_err());
        assert!(error.contains("parameter t") && error.contains("soon"), "{error}");
        assert!(message(ListContainers::parse("filters=%5B").unwrap_err()).contains("filters"));
        assert!(matches!(KillContainer::parse("signal=%ff"), Err(QueryError::Encoding)));
        assert!(matches!(KillContainer::parse("signal=a%00b"), Err(QueryError::Encoding)));
        assert!(matches!(KillContainer::parse(&"a=b&".repeat(2000)), Err(QueryError::TooMany)));
        assert!(Resize::parse("h=-1&w=80").is_err());
    }

    #[test]
    fn defaults_are_left_out_and_the_rest_is_escaped() {
        assert_eq!(ListContainers::default().encode(), "");
        let query = ListContainers {
            all: true,
            limit: Some(3),
            filters: Filters::new().with("label", "a=b c"),
            ..ListContainers::default()
        };
        assert_eq!(
            query.encode(),
            "all=1&limit=3&filters=%7B%22label%22%3A%7B%22a%3Db%20c%22%3Atrue%7D%7D"
        );
        assert_eq!(ListContainers::parse(&query.encode()).unwrap(), query);
        let once = ContainerStats { stream: Some(false), one_shot: true };
        assert_eq!(once.encode(), "stream=0&one-shot=1");
        let names = SaveImages { names: vec!["a/b:c".into(), "d".into()], platform: None };
        assert_eq!(names.encode(), "names=a%2Fb%3Ac&names=d");
    }

    proptest! {
        #[test]
        fn any_text_parameter_survives_the_wire(name in "[^\0]{0,40}", more in proptest::collection::vec("[^\0]{1,9}", 0..4)) {
            let query = CreateImage {
                from_image: (!name.is_empty()).then(|| name.clone()),
                changes: more,
                ..CreateImage::default()
            };
            prop_assert_eq!(CreateImage::parse(&query.encode()).unwrap(), query);
        }

        #[test]
        fn any_query_is_parsed_or_refused(query in ".{0,80}") {
            let _ = ContainerLogs::parse(&query);
            let _ = Events::parse(&query);
        }
    }
}
