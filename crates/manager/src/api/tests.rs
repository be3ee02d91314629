//! The HTTP layer over real sockets, with handlers that stand in for the engine.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{get, post};
use brig_engine_api::models::ExecConfig;
use brig_engine_api::query;
use brig_engine_api::stream::{StdStream, encode_frame};
use futures_util::stream;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream,
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

use super::detach::DetachKeys;
use super::failure::Failure;
use super::hijack::hijack;
use super::request::{Json, Name, Params, Version};
use super::respond::{Answer, endless_lines, json};
use super::server::serve_router;
use super::*;
use crate::AttachStream;

/// A server for one test.
struct Server {
    directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(router: Router, ending: Ending) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let listeners = vec![Listener::Unix(listener)];
        let task = tokio::spawn(serve_router(router, ending, listeners, shutdown));
        Self { directory, stop: Some(stop), task }
    }

    /// Sends raw bytes and returns the connection.
    async fn send(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.directory.path().join("s")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Sends raw bytes and returns everything answered until the connection closes.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.send(request).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// Reads the head of an answer.
async fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn closing_request(method: &str, target: &str, rest: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{rest}")
}

fn small_router() -> Router {
    Router::new()
        .route("/name/{id}", get(async |Name(name): Name| -> Answer { json(&name) }))
        .route(
            "/query",
            get(async |Params(query): Params<query::StopContainer>| -> Answer {
                json(&query.timeout)
            }),
        )
        .route(
            "/body",
            post(async |Json(config): Json<ExecConfig>| -> Answer { json(&config.cmd) }),
        )
        .route("/panic", get(async || -> Answer { panic!("on purpose") }))
        .fallback(async || Failure::new(http::StatusCode::NOT_FOUND, "page not found"))
}

#[tokio::test]
async fn hostile_requests_are_refused_and_the_server_goes_on() {
    let server = Server::start(small_router(), Ending::default());
    let json_body = |length: usize, kind: &str| {
        format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n")
    };
    let get = |target: &str| closing_request("GET", target, "\r\n");
    let cases = [
        (get("/name/web"), "200", "\"web\""),
        (get("/v1.30/name/%2e%2e"), "200", "\"..\""),
        (get("/name/%2e%2e%2fetc"), "200", "\"../etc\""),
        (get("/name/a%00b"), "400", "NUL"),
        (get("/name/%ff"), "400", "not text"),
        (get("/query?t=x"), "400", "parameter t"),
        (get("/v1.99/name/web"), "400", "too new"),
        (get("/v1.0/name/web"), "400", "too old"),
        (get("/nowhere"), "404", "{\"message\":\"page not found\"}"),
        (get("/panic"), "500", "log says more"),
        (closing_request("POST", "/body", "Content-Length: 0\r\n\r\n"), "400", "no body"),
        (
            closing_request(
                "POST",
                "/body",
                &(json_body(11, "application/json") + "{\"Cmd\":[\"a\""),
            ),
            "400",
            "invalid JSON",
        ),
        (
            closing_request("POST", "/body", &(json_body(2, "text/plain") + "{}")),
            "400",
            "must be 'application/json'",
        ),
        (
            closing_request(
                "POST",
                "/body",
                &(json_body(13, "application/json") + "{\"Cmd\":[\"a\"]}"),
            ),
            "200",
            "[\"a\"]",
        ),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400", ""),
    ];
    for (request, status, part) in cases {
        let answer = server.exchange(&request).await;
        let line = answer.lines().next().unwrap_or_default();
        assert!(line.contains(status), "{request}: {answer}");
        assert!(answer.contains(part), "{request}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn contradictory_lengths_never_smuggle_a_second_request() {
    let server = Server::start(small_router(), Ending::default());
    let smuggled = "GET /name/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let rest = format!(
        "Content-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    );
    let answer = server.exchange(&closing_request("POST", "/body", &rest)).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_huge_body_is_refused_before_it_is_read_whole() {
    let server = Server::start(small_router(), Ending::default());
    let head = "Content-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n";
    let mut stream = server.send(&closing_request("POST", "/body", head)).await;
    let chunk = vec![b' '; 1024 * 1024];
    for _ in 0..32 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    assert!(line.contains("413"), "{line}");
    server.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_versions() {
    let server = Server::start(small_router(), Ending::default());
    for target in ["/name/web", "/nowhere", "/v1.99/x"] {
        let answer = server.exchange(&closing_request("GET", target, "\r\n")).await.to_lowercase();
        for header in
            ["api-version: 1.51", "docker-experimental: false", "ostype: linux", "server: brig/"]
        {
            assert!(answer.contains(header), "{target}: {answer}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_streams_head_is_sent_before_its_first_line_and_shutdown_ends_it() {
    let ending = Ending::default();
    let router = Router::new().route(
        "/wait",
        post(async |State(ending): State<Ending>| -> Answer {
            Ok(endless_lines(&ending, stream::pending::<crate::Result<u8>>()))
        }),
    );
    let server = Server::start(router.with_state(ending.clone()), ending);
    let mut stream = server.send("POST /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    tokio::time::timeout(Duration::from_secs(5), server.stop()).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"0\r\n\r\n");
}

/// The far ends of a process's streams.
struct Process {
    output: DuplexStream,
    input: DuplexStream,
}

/// A server with one attach endpoint, and the process behind it.
fn attach_server(tty: bool) -> (Server, Process) {
    #[derive(Clone)]
    struct Behind(Ending, Arc<Mutex<Option<AttachStream>>>);
    let (output, process_output) = tokio::io::duplex(1024);
    let (input, process_input) = tokio::io::duplex(1024);
    let stream = AttachStream { tty, output: Box::new(output), input: Box::new(input) };
    let ending = Ending::default();
    let behind = Behind(ending.clone(), Arc::new(Mutex::new(Some(stream))));
    let attach = async |State(Behind(ending, stream)): State<Behind>,
                        Version(version): Version,
                        request: Request|
           -> Answer {
        let stream = stream.lock().await.take().unwrap();
        let (parts, _) = request.into_parts();
        Ok(hijack(&ending, parts, stream, DetachKeys::default(), version))
    };
    let router = Router::new().route("/attach", post(attach)).with_state(behind);
    (Server::start(router, ending), Process { output: process_output, input: process_input })
}

const ATTACH: &str = "POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn end_of_input_reaches_the_process_and_its_late_output_the_client() {
    let (server, mut process) = attach_server(false);
    let mut client = server.send(ATTACH).await;
    let head = head(&mut client).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: tcp"), "{head}");
    assert!(head.contains("application/vnd.docker.multiplexed-stream"), "{head}");

    client.write_all(b"input").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = String::new();
    process.input.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "input");

    let frame = encode_frame(StdStream::Stdout, b"late");
    process.output.write_all(&frame).await.unwrap();
    drop(process);
    let mut output = Vec::new();
    client.read_to_end(&mut output).await.unwrap();
    assert_eq!(output, frame);
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_process_closes_the_connection_though_input_is_open() {
    let (server, mut process) = attach_server(true);
    let mut client = server.send(ATTACH).await;
    assert!(head(&mut client).await.contains("application/vnd.docker.raw-stream"));
    process.output.write_all(b"bye").await.unwrap();
    drop(process);
    let mut output = String::new();
    client.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "bye");
    server.stop().await;
}

#[tokio::test]
async fn detach_keys_close_the_connection_and_are_not_typed() {
    let (server, mut process) = attach_server(true);
    let mut client = server.send(ATTACH).await;
    head(&mut client).await;
    client.write_all(b"ls\x10\x11").await.unwrap();
    let mut output = Vec::new();
    client.read_to_end(&mut output).await.unwrap();
    let mut typed = Vec::new();
    process.input.read_to_end(&mut typed).await.unwrap();
    assert_eq!(typed, b"ls");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_vanishes_releases_the_process() {
    let (server, mut process) = attach_server(false);
    let mut client = server.send(ATTACH).await;
    head(&mut client).await;
    drop(client);
    let mut input = Vec::new();
    process.input.read_to_end(&mut input).await.unwrap();
    // The first write may still fit into a buffer; in the end the stream is closed.
    while process.output.write_all(&[0; 512]).await.is_ok() {}
    server.stop().await;
}

#[tokio::test]
async fn without_an_upgrade_the_output_is_an_ordinary_answer() {
    let (server, mut process) = attach_server(true);
    process.output.write_all(b"plain").await.unwrap();
    drop(process);
    let answer =
        server.exchange(&closing_request("POST", "/attach", "Content-Length: 0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("plain"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn shutdown_ends_hijacked_connections() {
    let (server, process) = attach_server(false);
    let mut client = server.send(ATTACH).await;
    head(&mut client).await;
    tokio::time::timeout(Duration::from_secs(5), server.stop()).await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    drop(process);
}

#[tokio::test]
async fn web_pages_are_refused_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let listeners = vec![Listener::Tcp(listener)];
    let served = serve_router(small_router(), Ending::default(), listeners, shutdown);
    let task = tokio::spawn(served);
    for (headers, status) in [
        (format!("Host: {address}\r\n"), "200"),
        ("Host: rebound.example\r\n".to_owned(), "403"),
        (format!("Host: {address}\r\nOrigin: https://page.example\r\n"), "403"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /name/a HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{headers}: {answer}");
    }
    stop.send(()).unwrap();
    task.await.unwrap();
}
