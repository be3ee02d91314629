//! The few messages of CRIU's `rpc.proto`, in the encoding of protocol buffers (protobuf.dev, "Encoding").

use crate::error::{Error, ErrorKind, Result};

/// What CRIU is asked to do, as `criu_req_type` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Request {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
}

/// Fields of `criu_opts` by their numbers.
pub(crate) mod option {
    pub(crate) const IMAGES_DIRECTORY: u32 = 1;
    pub(crate) const PID: u32 = 2;
    pub(crate) const LEAVE_RUNNING: u32 = 3;
    pub(crate) const EXTERNAL_UNIX_SOCKETS: u32 = 4;
    pub(crate) const TCP_ESTABLISHED: u32 = 5;
    pub(crate) const EVASIVE_DEVICES: u32 = 6;
    pub(crate) const SHELL_JOB: u32 = 7;
    pub(crate) const FILE_LOCKS: u32 = 8;
    pub(crate) const LOG_LEVEL: u32 = 9;
    pub(crate) const LOG_FILE: u32 = 10;
    pub(crate) const PAGE_SERVER: u32 = 11;
    pub(crate) const NOTIFY: u32 = 12;
    pub(crate) const ROOT: u32 = 13;
    pub(crate) const PARENT_IMAGES: u32 = 14;
    pub(crate) const TRACK_MEMORY: u32 = 15;
    pub(crate) const AUTO_DEDUP: u32 = 16;
    pub(crate) const WORK_DIRECTORY: u32 = 17;
    pub(crate) const LINK_REMAP: u32 = 18;
    pub(crate) const EXTERNAL_MOUNT: u32 = 23;
    pub(crate) const MANAGE_CGROUPS: u32 = 24;
    pub(crate) const RESTORE_AS_SIBLING: u32 = 26;
    pub(crate) const INHERIT: u32 = 27;
    pub(crate) const MANAGE_CGROUPS_MODE: u32 = 34;
    pub(crate) const EXTERNAL: u32 = 37;
    pub(crate) const EMPTY_NAMESPACES: u32 = 38;
    pub(crate) const JOIN_NAMESPACE: u32 = 39;
    pub(crate) const FREEZE_CGROUP: u32 = 44;
    pub(crate) const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub(crate) const ORPHAN_TERMINALS: u32 = 50;
    pub(crate) const CONFIG_FILE: u32 = 51;
    pub(crate) const LSM_PROFILE: u32 = 53;
    pub(crate) const LSM_MOUNT_CONTEXT: u32 = 63;
}

/// A message being written. Numbers are not negative here.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    pub(crate) fn number(mut self, field: u32, value: u64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// Left out when it is false, which is what its absence means.
    pub(crate) fn switch(self, field: u32, value: bool) -> Self {
        if value { self.number(field, 1) } else { self }
    }

    pub(crate) fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message of two fields, 1 and 2, as CRIU's maps are.
    pub(crate) fn pair(self, field: u32, key: &[u8], value: &[u8]) -> Self {
        let pair = Self::default().bytes(1, key).bytes(2, value);
        self.bytes(field, &pair.0)
    }

    /// A descriptor that stands for what CRIU knows by `key`.
    pub(crate) fn inherit(self, key: &str, descriptor: u64) -> Self {
        let inherited = Self::default().bytes(1, key.as_bytes()).number(2, descriptor);
        self.bytes(option::INHERIT, &inherited.0)
    }

    /// `criu_page_server_info`
    pub(crate) fn page_server(self, address: &str, port: u16) -> Self {
        let server = Self::default().bytes(1, address.as_bytes()).number(2, port.into());
        self.bytes(option::PAGE_SERVER, &server.0)
    }
}

/// A request with these options.
pub(crate) fn request(request: Request, options: &Message) -> Vec<u8> {
    Message::default().number(1, request as u64).bytes(2, &options.0).0
}

/// The question whether CRIU and this kernel can tell which memory was written since the last time.
pub(crate) fn ask_for_memory_tracking() -> Vec<u8> {
    let features = Message::default().number(1, 1);
    Message::default().number(1, Request::FeatureCheck as u64).bytes(5, &features.0).0
}

/// What a notification is answered with.
pub(crate) fn notified(success: bool) -> Vec<u8> {
    Message::default().number(1, Request::Notify as u64).number(3, success.into()).0
}

/// What CRIU says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) kind: u64,
    pub(crate) success: bool,
    /// Of a restored tree's first process.
    pub(crate) restored: Option<i32>,
    /// The point of its work that a notification is about, and the process that is its first.
    pub(crate) script: String,
    pub(crate) pid: Option<i32>,
    /// The error number, where it has one.
    pub(crate) errno: i32,
    /// Of a check of features.
    pub(crate) tracks_memory: bool,
}

impl Response {
    /// Reads a response.
    ///
    /// # Errors
    /// `Integrity` when it is none.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut response = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(kind)) => response.kind = kind,
                (2, Value::Number(success)) => response.success = success != 0,
                (4, Value::Bytes(restore)) => response.restored = pid_of(restore, 1)?,
                (5, Value::Bytes(notify)) => {
                    response.pid = pid_of(notify, 2)?;
                    for field in Fields(notify) {
                        if let (1, Value::Bytes(script)) = field? {
                            response.script = String::from_utf8_lossy(script).into_owned();
                        }
                    }
                }
                (7, Value::Number(errno)) => response.errno = i32::try_from(errno).unwrap_or(0),
                (8, Value::Bytes(features)) => {
                    response.tracks_memory = pid_of(features, 1)? == Some(1);
                }
                _ => {}
            }
        }
        Ok(response)
    }
}

/// The small number in a field of a message.
fn pid_of(message: &[u8], wanted: u32) -> Result<Option<i32>> {
    for field in Fields(message) {
        if let (number, Value::Number(value)) = field?
            && number == wanted
        {
            return Ok(i32::try_from(value).ok());
        }
    }
    Ok(None)
}

/// The value of a field, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, by number.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            // Nothing can be read after what cannot be.
            self.0 = &[];
        }
        Some(field.ok_or_else(|| Error::new(ErrorKind::Integrity, "read a message of criu")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_the_documents_example_is() {
        assert_eq!(Message::default().number(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().bytes(2, b"testing").0, b"\x12\x07testing");
        assert_eq!(Message::default().switch(3, false).0, b"");
        let field = Message::default().number(63, u64::MAX).0;
        let read: Vec<_> = Fields(&field).map(Result::unwrap).collect();
        assert_eq!(read, [(63, Value::Number(u64::MAX))]);
    }

    #[test]
    fn notifications_and_results_are_told_apart() {
        let notify = Message::default().bytes(1, b"pre-resume").number(2, 77).0;
        let bytes = Message::default().number(1, 6).number(2, 1).bytes(5, &notify).0;
        let response = Response::parse(&bytes).unwrap();
        assert_eq!((response.script.as_str(), response.pid), ("pre-resume", Some(77)));
        let restore = Message::default().number(1, 99).0;
        let bytes = Message::default().number(1, 2).number(2, 1).bytes(4, &restore).0;
        assert_eq!(Response::parse(&bytes).unwrap().restored, Some(99));
    }

    #[test]
    fn damaged_messages_are_errors_without_end() {
        for bytes in [&[0x80][..], &[0x0a, 0x05, 1], &[0x0b], &[0xff; 40]] {
            assert_eq!(Response::parse(bytes).unwrap_err().kind(), ErrorKind::Integrity);
        }
    }
}
