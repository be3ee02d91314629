//! Reading `config.json`.

use std::io::Read as _;
use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::Value;

use super::place::path_at;
use crate::error::{Error, ErrorKind, Result};

/// The largest configuration that is read, in bytes.
const CONFIG_MAX: u64 = 16 << 20;

/// A configuration, and the bytes it came from.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) spec: Spec,
    pub(crate) bytes: Vec<u8>,
}

impl Config {
    /// Reads the `config.json` of a bundle, or a copy of one.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` with the place of the mistake.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let attempt = || format!("read {}", path.display());
        let file = std::fs::File::open(path).map_err(|source| Error::system(attempt(), source))?;
        let size = file.metadata().map_or(0, |about| about.len());
        // With room for all of it, it is read at once.
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(CONFIG_MAX)).unwrap_or(0) + 64);
        file.take(CONFIG_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::system(attempt(), source))?;
        if bytes.len() as u64 > CONFIG_MAX {
            let text = format!("{}: larger than {CONFIG_MAX} bytes", path.display());
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let spec =
            parse_bytes(&bytes).map_err(|error| error.context(format!("{}", path.display())))?;
        Ok(Self { spec, bytes })
    }
}

/// Parses a configuration.
///
/// # Errors
/// `InvalidInput` with the place of the mistake.
pub(crate) fn parse_bytes(bytes: &[u8]) -> Result<Spec> {
    let first = match serde_json::from_slice::<Spec>(bytes) {
        Ok(spec) if !MISSPELLED.iter().any(|(name, _)| contains(bytes, name)) => return Ok(spec),
        Ok(_) => {
            let missing = "a field that the types lack";
            <serde_json::Error as serde::de::Error>::custom(missing)
        }
        Err(error) => error,
    };
    // The types know fewer names than the specification and other runtimes accept. Once a document is refused, what
    // those treat as unknown is taken out and it is tried again; the first answer is the one to report.
    let refused = |error: serde_json::Error| {
        let path = path_at(bytes, error.line(), error.column());
        let attempt = match path.as_str() {
            "" => "parse the configuration".to_owned(),
            path => format!("parse {path} of the configuration"),
        };
        Error::new(ErrorKind::InvalidInput, attempt).with_source(error)
    };
    if first.to_string().starts_with("duplicate field") {
        // Other readers of the document may have taken the other one.
        return Err(refused(first));
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else {
        return Err(refused(first));
    };
    repair(&mut value);
    serde_json::from_value(value).map_err(|_| refused(first))
}

/// Fields that the types know by another name than the specification, and would take for unknown ones.
const MISSPELLED: [(&str, &str); 2] = [("enableCMT", "enableCmt"), ("enableMBM", "enableMbm")];

fn contains(bytes: &[u8], name: &str) -> bool {
    bytes.windows(name.len()).any(|window| window == name.as_bytes())
}

/// Takes out or renames what the types cannot hold although it is valid or ignored elsewhere.
fn repair(value: &mut Value) {
    if let Some(Value::Object(sets)) = value.pointer_mut("/process/capabilities") {
        for names in sets.values_mut().filter_map(Value::as_array_mut) {
            names.retain(|name| {
                name.as_str().is_some_and(|name| brig_linux::capability::parse(name).is_some())
            });
        }
    }
    if let Some(Value::Array(flags)) = value.pointer_mut("/process/scheduler/flags") {
        for flag in flags {
            match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
                Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
                _ => {}
            }
        }
    }
    if let Some(Value::Object(classes)) = value.pointer_mut("/linux/intelRdt") {
        for (name, known) in MISSPELLED {
            if let Some(switch) = classes.remove(name) {
                classes.insert(known.to_owned(), switch);
            }
        }
    }
    if let Some(Value::Array(limits)) = value.pointer_mut("/linux/resources/hugepageLimits") {
        for limit in limits {
            if let Some(number) = limit.get_mut("limit")
                && number.as_u64().is_some_and(|number| i64::try_from(number).is_err())
            {
                *number = i64::MAX.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_capabilities_are_left_out() {
        let text = br#"{"ociVersion":"1.2.0","process":{"cwd":"/","args":["a"],
            "user":{"uid":0,"gid":0},"capabilities":{"bounding":["CAP_NEW","CAP_CHOWN"]}}}"#;
        let spec = parse_bytes(text).unwrap();
        let sets = spec.process().clone().unwrap().capabilities().clone().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn fields_that_the_types_misspell_are_not_lost() {
        let text = br#"{"ociVersion":"1.2.0","linux":{"intelRdt":{"enableCMT":true}}}"#;
        let classes = parse_bytes(text).unwrap().linux().clone().unwrap().intel_rdt().clone();
        assert_eq!(*classes.unwrap().enable_cmt(), Some(true));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let error = parse_bytes(br#"{"ociVersion": 7}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.chain().contains("line 1"), "{}", error.chain());
        assert!(parse_bytes(b"").is_err());
        assert!(parse_bytes(&[b'['; 1 << 16]).is_err());
    }
}
