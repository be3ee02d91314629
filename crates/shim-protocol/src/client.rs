//! A small blocking client: one connection, one call at a time.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use prost::Message;

use crate::error::{Cause, Error, Result};
use crate::task;
use crate::ttrpc::{Decoder, Kind, Request, Response, encode_frame};

/// A connection to a shim's task service.
///
/// A call blocks until it is answered: use a connection of its own for Wait.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    decoder: Decoder,
    pending: Vec<u8>,
    next_stream: u32,
}

impl Client {
    /// Connects to a shim's socket.
    ///
    /// # Errors
    /// `NotFound` when there is no socket or nobody listens.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path)
            .map_err(|source| Error::from(Cause::Connect { path: path.to_owned(), source }))?;
        Ok(Self::from_stream(socket))
    }

    /// Uses a connected socket.
    pub fn from_stream(socket: UnixStream) -> Self {
        Self { socket, decoder: Decoder::new(), pending: Vec::new(), next_stream: 1 }
    }

    /// Limits how long a call waits for its answer; `None` is for ever. A call that timed out leaves the
    /// connection unusable.
    ///
    /// # Errors
    /// When the socket refuses the option (a zero duration).
    pub fn set_timeout(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.socket.set_read_timeout(timeout)?;
        self.socket.set_write_timeout(timeout)
    }

    /// Calls a method of the task service, version 3.
    ///
    /// # Errors
    /// The shim's status (see [`Error::code`]), or a failure of the connection.
    pub fn call<A: Message, R: Message + Default>(
        &mut self,
        method: &str,
        argument: &A,
    ) -> Result<R> {
        self.call_service(task::SERVICE_V3, method, argument)
    }

    /// Calls a method of any service.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_service<A: Message, R: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        argument: &A,
    ) -> Result<R> {
        let stream = self.next_stream;
        self.next_stream = self.next_stream.wrapping_add(2);
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: argument.encode_to_vec(),
            timeout_nano: 0,
            metadata: Vec::new(),
        };
        let frame = encode_frame(Kind::Request, stream, &request)?;
        self.socket
            .write_all(&frame)
            .map_err(|source| Error::from(Cause::Send { method: method.to_owned(), source }))?;
        let payload = self.receive(stream, method)?.into_payload(method)?;
        R::decode(&*payload)
            .map_err(|source| Cause::Decode { message: std::any::type_name::<R>(), source }.into())
    }

    fn receive(&mut self, stream: u32, method: &str) -> Result<Response> {
        let mut buffer = [0; 4096];
        loop {
            let mut input = &*self.pending;
            let frame = self.decoder.next(&mut input)?;
            let used = self.pending.len() - input.len();
            self.pending.drain(..used);
            match frame {
                Some(frame) if frame.stream == stream && frame.kind == Kind::Response => {
                    return Response::decode(&*frame.payload)
                        .map_err(|source| Cause::Decode { message: "Response", source }.into());
                }
                Some(_other_call) => continue,
                None => {}
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Cause::Closed { method: method.to_owned() }.into()),
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Cause::Receive { method: method.to_owned(), source }.into());
                }
            }
        }
    }
}
