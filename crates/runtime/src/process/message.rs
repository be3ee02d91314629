//! What a child reports: steps, by number, so that nothing is formatted where nothing may be allocated.

use rustix::io::Errno;

/// The longest detail of a failure, in bytes; longer ones are cut. Failures are passed by value, so it is short.
pub(crate) const DETAIL_MAX: usize = 92;
/// The longest encoded message.
pub(crate) const MESSAGE_MAX: usize = 10 + DETAIL_MAX;

/// What a child was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Protect,
    Wait,
    EnterNamespace,
    Clone,
    MapRoot,
    NewNamespace,
    TimeOffsets,
    Stdio,
    Loopback,
    Hostname,
    Domainname,
    RootPropagation,
    AttachRoot,
    Source,
    Mount,
    Device,
    DeviceLink,
    Terminal,
    ConsoleDevice,
    Hook,
    Mask,
    MaskSource,
    ReadOnlyPath,
    PrivateProc,
    Sysctl,
    PivotRoot,
    RootReadOnly,
    Keyring,
    Label,
    Personality,
    Scheduler,
    IoPriority,
    NoNewPrivileges,
    Bounding,
    Groups,
    User,
    Capabilities,
    Ambient,
    WorkingDirectory,
    FindProgram,
    Seccomp,
    Exec,
    Start,
    Chroot,
    MemoryPolicy,
    Affinity,
    OomScore,
    JoinCgroup,
    Unknown,
}

impl Step {
    fn from_number(number: u8) -> Self {
        const ALL: [Step; 49] = [
            Step::Protect,
            Step::Wait,
            Step::EnterNamespace,
            Step::Clone,
            Step::MapRoot,
            Step::NewNamespace,
            Step::TimeOffsets,
            Step::Stdio,
            Step::Loopback,
            Step::Hostname,
            Step::Domainname,
            Step::RootPropagation,
            Step::AttachRoot,
            Step::Source,
            Step::Mount,
            Step::Device,
            Step::DeviceLink,
            Step::Terminal,
            Step::ConsoleDevice,
            Step::Hook,
            Step::Mask,
            Step::MaskSource,
            Step::ReadOnlyPath,
            Step::PrivateProc,
            Step::Sysctl,
            Step::PivotRoot,
            Step::RootReadOnly,
            Step::Keyring,
            Step::Label,
            Step::Personality,
            Step::Scheduler,
            Step::IoPriority,
            Step::NoNewPrivileges,
            Step::Bounding,
            Step::Groups,
            Step::User,
            Step::Capabilities,
            Step::Ambient,
            Step::WorkingDirectory,
            Step::FindProgram,
            Step::Seccomp,
            Step::Exec,
            Step::Start,
            Step::Chroot,
            Step::MemoryPolicy,
            Step::Affinity,
            Step::OomScore,
            Step::JoinCgroup,
            Step::Unknown,
        ];
        ALL.get(usize::from(number)).copied().unwrap_or(Self::Unknown)
    }
}

/// A step that failed, on the item `index` of the plan's list that the step works through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) index: u32,
    pub(crate) errno: Errno,
    detail: [u8; DETAIL_MAX],
    detail_length: usize,
}

impl Failure {
    pub(crate) fn new(step: Step, index: usize, errno: Errno) -> Self {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Self { step, index, errno, detail: [0; DETAIL_MAX], detail_length: 0 }
    }

    pub(crate) fn with_detail(mut self, detail: &[u8]) -> Self {
        let length = detail.len().min(DETAIL_MAX);
        self.detail[..length].copy_from_slice(&detail[..length]);
        self.detail_length = length;
        self
    }

    pub(crate) fn detail(&self) -> &[u8] {
        &self.detail[..self.detail_length]
    }
}

/// Names the step of a failed system call.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failure> {
        self.map_err(|errno| Failure::new(step, index, errno))
    }
}

/// A message from the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The intermediate made the real process; its pidfd comes along.
    Made(i32),
    /// All mounts are in place; the hooks of the caller's namespaces may run.
    Mounted,
    /// Waiting for the start; the master side of the terminal comes along, if there is one.
    Ready,
    /// It is over.
    Failed(Failure),
}

impl Message {
    /// Writes the message into `buffer` and answers its length.
    pub(crate) fn encode(&self, buffer: &mut [u8; MESSAGE_MAX]) -> usize {
        match self {
            Self::Made(pid) => {
                buffer[0] = b'P';
                buffer[1..5].copy_from_slice(&pid.to_le_bytes());
                5
            }
            Self::Mounted => {
                buffer[0] = b'M';
                1
            }
            Self::Ready => {
                buffer[0] = b'R';
                1
            }
            Self::Failed(failure) => {
                buffer[0] = b'F';
                buffer[1] = failure.step as u8;
                buffer[2..6].copy_from_slice(&failure.index.to_le_bytes());
                buffer[6..10].copy_from_slice(&failure.errno.raw_os_error().to_le_bytes());
                buffer[10..10 + failure.detail_length].copy_from_slice(failure.detail());
                10 + failure.detail_length
            }
        }
    }

    /// Reads a message; `None` when it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        match bytes.first()? {
            b'P' => Some(Self::Made(i32::from_le_bytes(word(1)?))),
            b'M' => Some(Self::Mounted),
            b'R' => Some(Self::Ready),
            b'F' => {
                let errno = Errno::from_raw_os_error(i32::from_le_bytes(word(6)?));
                let mut failure = Failure::new(Step::from_number(*bytes.get(1)?), 0, errno);
                failure.index = u32::from_le_bytes(word(2)?);
                Some(Self::Failed(failure.with_detail(bytes.get(10..)?)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_round() {
        let failure = Failure::new(Step::Exec, 3, Errno::NOENT).with_detail(b"why");
        for message in
            [Message::Made(7), Message::Mounted, Message::Ready, Message::Failed(failure)]
        {
            let mut buffer = [0; MESSAGE_MAX];
            let length = message.encode(&mut buffer);
            assert_eq!(Message::decode(&buffer[..length]), Some(message));
        }
        assert_eq!(Message::decode(b""), None);
        assert_eq!(Message::decode(b"P1"), None);
    }

    #[test]
    fn every_step_has_its_number() {
        for number in 0..=Step::Unknown as u8 {
            assert_eq!(Step::from_number(number) as u8, number);
        }
        assert_eq!(Step::from_number(255), Step::Unknown);
    }
}
