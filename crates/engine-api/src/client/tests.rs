//! The client against a hand-written server that answers with recorded bytes.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::query;
use crate::stream::{Output, StdStream, encode_frame};

/// A directory that removes itself.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("brig-client-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn url(&self) -> String {
        format!("unix://{}/api.sock", self.0.display())
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.0.join("api.sock")).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reads the head of a request.
async fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Serves one connection: expects a request that begins with `expected` and answers `answer`.
async fn answer(listener: &UnixListener, expected: &str, answer: &str) -> UnixStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let head = head(&mut stream).await;
    assert!(head.starts_with(expected), "{head}");
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn without_a_daemon_the_error_says_so() {
    let directory = Directory::new("none");
    let error = Client::connect(&directory.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    assert!(error.to_string().contains("is it running?"), "{error}");

    // A socket that nobody listens on any more.
    drop(directory.listen());
    let error = Client::connect(&directory.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
}

#[test]
fn urls_are_unix_or_tcp() {
    let parse = |url: &str| url.parse::<Endpoint>();
    assert_eq!(parse("unix:///a/b").unwrap(), Endpoint::Unix("/a/b".into()));
    assert_eq!(parse("tcp://[::1]:2375/").unwrap(), Endpoint::Tcp("[::1]:2375".into()));
    for bad in ["", "/a/b", "unix://a", "tcp://host", "tcp://:1", "tcp://h:1/x", "ssh://h:1"] {
        assert_eq!(parse(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
    }
}

#[tokio::test]
async fn the_older_of_both_versions_is_spoken_and_refusals_keep_their_message() {
    let directory = Directory::new("version");
    let listener = directory.listen();
    let server = async {
        let pong = "HTTP/1.1 200 OK\r\nApi-Version: 1.40\r\nContent-Length: 0\r\n\r\n";
        answer(&listener, "HEAD /_ping HTTP/1.1", pong).await;
        let body = r#"{"message":"No such container: a/b c"}"#;
        let refusal =
            format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        answer(&listener, "POST /v1.40/containers/a/b%20c/kill?signal=TERM ", &refusal).await;
    };
    let call = async {
        let client = Client::connect(&directory.url()).await.unwrap();
        client.kill_container("a/b c", Some("TERM")).await.unwrap_err()
    };
    let ((), error) = tokio::join!(server, call);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "No such container: a/b c");
}

#[tokio::test]
async fn lines_arrive_before_the_stream_ends() {
    let directory = Directory::new("lines");
    let listener = directory.listen();
    let client = Client::new(&directory.url()).unwrap();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = "14\r\n{\"status\":\"Pulling\"}\r\n1\r\n\n\r\n";
    let server = answer(&listener, "POST /v1.51/images/create?fromImage=busybox", head);
    let query = query::CreateImage { from_image: Some("busybox".into()), ..Default::default() };
    let (mut connection, lines) = tokio::join!(server, client.pull_image(&query, None));
    let mut lines = lines.unwrap();
    connection.write_all(chunk.as_bytes()).await.unwrap();
    let line = lines.next().await.unwrap().unwrap();
    assert_eq!(line.status.as_deref(), Some("Pulling"));
    connection.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn a_hijacked_connection_half_closes_and_goes_on_reading() {
    let directory = Directory::new("hijack");
    let listener = directory.listen();
    let client = Client::new(&directory.url()).unwrap();
    let switch = format!(
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: {}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        crate::stream::MULTIPLEXED_STREAM
    );
    let server = answer(&listener, "POST /v1.51/containers/c/attach?stream=1", &switch);
    let query =
        query::AttachContainer { stream: true, stdin: true, stdout: true, ..Default::default() };
    let (mut connection, hijacked) =
        tokio::join!(server, client.attach_container("c", &query, false));
    let Hijacked { mut output, mut input } = hijacked.unwrap();

    input.write_all(b"to the process").await.unwrap();
    input.shutdown().await.unwrap();
    let mut received = String::new();
    connection.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "to the process");

    connection.write_all(&encode_frame(StdStream::Stderr, b"late")).await.unwrap();
    drop(connection);
    let piece = output.next().await.unwrap().unwrap();
    assert_eq!(piece, Output { stream: StdStream::Stderr, data: "late".into() });
    assert!(output.next().await.is_none());
}
