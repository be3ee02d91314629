//! The name server of one container: answers from its zone, asks the host's servers for the rest, keeps nothing.
//!
//! Queries come by UDP and TCP on sockets inside the container's namespace; questions to the host's servers go out in
//! the host's. An upstream answer is taken only from a server that was asked, with the identifier that was asked with,
//! and passed on unchanged. All servers are asked at once and the first answer wins.
//!
//! Limits: [`QUERIES_MAX`] UDP queries and [`CONNECTIONS_MAX`] TCP connections at a time for each container; a query
//! takes at most [`UPSTREAM_TIMEOUT`], an idle connection lives [`IDLE_TIMEOUT`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use brig_network::Protocol;
use brig_network::dns::{self, Answer, Sockets, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

const QUERIES_MAX: usize = 128;
const CONNECTIONS_MAX: usize = 16;
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Servers of the host that are asked.
const SERVERS_MAX: usize = 3;
/// The largest message (RFC 1035, 4.2.2).
const MESSAGE_BYTES_MAX: usize = 65_535;
const HEADER_BYTES: usize = 12;
const PORT: u16 = 53;

/// A running name server; ends when dropped.
#[derive(Debug)]
pub(super) struct Server {
    _ending: DropGuard,
}

#[derive(Debug)]
struct Shared {
    zones: watch::Receiver<Arc<Zone>>,
    upstream: Vec<SocketAddr>,
    queries: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// Starts answering on the sockets.
pub(super) fn spawn(
    tasks: &TaskTracker,
    sockets: Sockets,
    zones: watch::Receiver<Arc<Zone>>,
    upstream: Vec<IpAddr>,
) -> Result<Server> {
    let what = "take over the name server's sockets";
    let udp = UdpSocket::from_std(sockets.udp).map_err(|source| Error::io(what, source))?;
    let tcp = TcpListener::from_std(sockets.tcp).map_err(|source| Error::io(what, source))?;
    let upstream = upstream
        .into_iter()
        .take(SERVERS_MAX)
        .map(|server| SocketAddr::new(server, PORT))
        .collect();
    let shared = Arc::new(Shared {
        zones,
        upstream,
        queries: Arc::new(Semaphore::new(QUERIES_MAX)),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    });
    let ending = CancellationToken::new();
    let (by_udp, by_tcp) = (Arc::clone(&shared), shared);
    let (until, until_too) = (ending.clone(), ending.clone());
    tasks.spawn(async move {
        tokio::select! { () = until.cancelled() => {}, () = serve_udp(by_udp, Arc::new(udp)) => {} }
    });
    tasks.spawn(async move {
        tokio::select! { () = until_too.cancelled() => {}, () = serve_tcp(by_tcp, tcp) => {} }
    });
    Ok(Server { _ending: ending.drop_guard() })
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0_u8; MESSAGE_BYTES_MAX];
    let mut answering = tokio::task::JoinSet::new();
    loop {
        while answering.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!("receive a name query: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let query = buffer[..length].to_vec();
        match answer(&shared, &query, Protocol::Udp) {
            Answer::Drop => {}
            Answer::Reply(reply) => drop(socket.try_send_to(&reply, client)),
            Answer::Forward => {
                // Past the limit the query is dropped: its sender asks again.
                let Ok(place) = Arc::clone(&shared.queries).try_acquire_owned() else { continue };
                let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
                answering.spawn(async move {
                    let reply = match ask_by_udp(&shared.upstream, &query).await {
                        Some(reply) => reply,
                        None => server_failure(&query),
                    };
                    let _ = socket.send_to(&reply, client).await;
                    drop(place);
                });
            }
        }
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    let mut answering = tokio::task::JoinSet::new();
    loop {
        while answering.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Past the limit the connection is closed; an idle one blocks nobody for long.
        let Ok(place) = Arc::clone(&shared.connections).try_acquire_owned() else { continue };
        let shared = Arc::clone(&shared);
        answering.spawn(async move {
            let _ = serve_connection(&shared, stream).await;
            drop(place);
        });
    }
}

async fn serve_connection(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let Ok(query) = tokio::time::timeout(IDLE_TIMEOUT, read_message(&mut stream)).await else {
            return Ok(());
        };
        let query = query?;
        let reply = match answer(shared, &query, Protocol::Tcp) {
            Answer::Drop => return Ok(()),
            Answer::Reply(reply) => reply,
            Answer::Forward => match ask_by_tcp(&shared.upstream, &query).await {
                Some(reply) => reply,
                None => server_failure(&query),
            },
        };
        write_message(&mut stream, &reply).await?;
    }
}

fn answer(shared: &Shared, query: &[u8], transport: Protocol) -> Answer {
    let zone = Arc::clone(&shared.zones.borrow());
    dns::answer(query, &zone, transport)
}

/// Asks all servers by UDP; the first answer wins.
async fn ask_by_udp(servers: &[SocketAddr], query: &[u8]) -> Option<Vec<u8>> {
    let (v4, v6): (Vec<SocketAddr>, Vec<SocketAddr>) =
        servers.iter().partition(|server| server.is_ipv4());
    let race = async {
        tokio::select! {
            Some(reply) = ask_family_by_udp(([0, 0, 0, 0], 0).into(), &v4, query) => Some(reply),
            Some(reply) = ask_family_by_udp(([0_u16; 8], 0).into(), &v6, query) => Some(reply),
            else => None,
        }
    };
    tokio::time::timeout(UPSTREAM_TIMEOUT, race).await.ok().flatten()
}

/// Asks the servers of one address family from one socket, whose port the kernel chose at random.
async fn ask_family_by_udp(
    local: SocketAddr,
    servers: &[SocketAddr],
    query: &[u8],
) -> Option<Vec<u8>> {
    if servers.is_empty() {
        return None;
    }
    let socket = UdpSocket::bind(local).await.ok()?;
    let mut asked = false;
    for server in servers {
        asked |= socket.send_to(query, server).await.is_ok();
    }
    if !asked {
        return None;
    }
    let mut buffer = vec![0_u8; MESSAGE_BYTES_MAX];
    loop {
        // An error here is an ICMP answer of one server; the others may still speak.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if servers.contains(&from)
            && length >= HEADER_BYTES
            && buffer[..2] == query[..2]
            && buffer[2] & 0x80 != 0
        {
            buffer.truncate(length);
            return Some(buffer);
        }
    }
}

/// Asks the servers by TCP, one after the other.
async fn ask_by_tcp(servers: &[SocketAddr], query: &[u8]) -> Option<Vec<u8>> {
    for server in servers {
        let exchange = async {
            let mut stream = TcpStream::connect(server).await?;
            write_message(&mut stream, query).await?;
            read_message(&mut stream).await
        };
        if let Ok(Ok(reply)) = tokio::time::timeout(UPSTREAM_TIMEOUT, exchange).await
            && reply.len() >= HEADER_BYTES
            && reply[..2] == query[..2]
        {
            return Some(reply);
        }
    }
    None
}

async fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0_u8; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// The query's header and question with the answer SERVFAIL. The library forwards only well-formed queries.
fn server_failure(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    if let [_, _, flags, code, ..] = reply.as_mut_slice() {
        *flags |= 0x80;
        *code = (*code & 0xf0) | 0x82;
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for `a.`, type A.
    const QUERY: &[u8] = &[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];

    async fn upstream() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = socket.local_addr().expect("its address");
        (socket, address)
    }

    #[tokio::test]
    async fn the_first_matching_answer_wins() {
        let (silent, first) = upstream().await;
        let (speaking, second) = upstream().await;
        let server = tokio::spawn(async move {
            let mut buffer = [0_u8; 512];
            let (length, client) = speaking.recv_from(&mut buffer).await.expect("a query");
            let mut reply = buffer[..length].to_vec();
            // An answer to another question comes first and is not taken.
            reply[0] ^= 0xff;
            reply[2] |= 0x80;
            speaking.send_to(&reply, client).await.expect("send");
            reply[0] ^= 0xff;
            speaking.send_to(&reply, client).await.expect("send");
        });
        let reply = ask_by_udp(&[first, second], QUERY).await.expect("an answer");
        assert_eq!(reply[..2], QUERY[..2]);
        server.await.expect("the server ends");
        drop(silent);
    }

    #[tokio::test]
    async fn without_servers_there_is_no_answer() {
        assert!(ask_by_udp(&[], QUERY).await.is_none());
        assert!(ask_by_tcp(&[], QUERY).await.is_none());
    }

    #[test]
    fn a_failure_answers_the_question_that_was_asked() {
        let reply = server_failure(QUERY);
        assert_eq!(reply[..2], QUERY[..2]);
        assert_eq!((reply[2] & 0x80, reply[3] & 0x0f), (0x80, 2));
        assert_eq!(reply[4..], QUERY[4..]);
    }
}
