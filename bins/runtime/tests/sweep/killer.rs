//! A tracer that kills at one system call.
//!
//! strace can inject a signal too, but counts every system call by its own name, so it cannot say "the 300th".

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The program: what it made lives on for a moment.
    Program,
    /// A process that the program made, whichever of them makes that call.
    Child,
}

/// Where to kill.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) victim: Victim,
    /// The first system call of the program, or of all its children together, is 1.
    pub(crate) call: usize,
}

/// Runs a program until it ends; answers whether the point was reached. What the program leaves behind goes on.
pub(crate) fn run(program: &Path, arguments: &[String], point: Point) -> bool {
    let arguments = arguments.to_vec();
    let program = program.to_owned();
    // The tracer is this thread: when it ends, the kernel lets go of everything that it still traces.
    std::thread::spawn(move || trace(&program, &arguments, point)).join().unwrap()
}

fn trace(program: &Path, arguments: &[String], point: Point) -> bool {
    // The shell waits until it is traced, and becomes the program then.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read go; exec \"$@\" </dev/null", "sh"]).arg(program).args(arguments);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut shell = shell.spawn().unwrap();
    let main = Pid::from_raw(i32::try_from(shell.id()).unwrap());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::seize(main, options).unwrap();
    ptrace::interrupt(main).unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    drop(stdin);
    let mut tracer = Tracer { main, point, started: false, calls: 0, entering: Vec::new() };
    while tracer.step() {}
    let reached = tracer.calls >= point.call;
    // Its end was seen by the tracer.
    drop(shell);
    reached
}

struct Tracer {
    main: Pid,
    point: Point,
    /// Whether the shell has become the program.
    started: bool,
    calls: usize,
    /// Processes that are inside a system call: entry and exit are told apart by their order only.
    entering: Vec<Pid>,
}

impl Tracer {
    /// Handles one event; answers whether the program still runs.
    fn step(&mut self) -> bool {
        // Only this thread's: other tests of this process have children too.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitpid(None, Some(flags)).unwrap() {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => {
                self.entering.retain(|other| *other != pid);
                return pid != self.main;
            }
            WaitStatus::PtraceSyscall(pid) => {
                if let Some(at) = self.entering.iter().position(|other| *other == pid) {
                    self.entering.swap_remove(at);
                } else {
                    self.entering.push(pid);
                    if self.is_victim(pid) {
                        self.calls += 1;
                        if self.calls == self.point.call {
                            kill(pid, Signal::SIGKILL).unwrap();
                            return true;
                        }
                    }
                }
                resume(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.started |= pid == self.main && event == Event::PTRACE_EVENT_EXEC as i32;
                resume(pid, None);
            }
            // A signal on its way to the program.
            WaitStatus::Stopped(pid, signal) => resume(pid, Some(signal)),
            _ => {}
        }
        true
    }

    fn is_victim(&self, pid: Pid) -> bool {
        let child = pid != self.main;
        self.started && child == (self.point.victim == Victim::Child)
    }
}

fn resume(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal) {
        // Killed meanwhile.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("resume {pid}: {error}"),
    }
}
