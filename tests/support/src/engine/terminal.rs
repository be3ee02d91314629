//! A command on a terminal of its own: a pseudo-terminal whose other side is the test.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::wait;

/// A command that has a terminal, as somebody at a keyboard would run it. Dropping it kills it.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Keeps the terminal, and its settings, past the end of the command.
    screen: OwnedFd,
    output: Arc<Mutex<Vec<u8>>>,
    /// What the test has looked at.
    seen: usize,
}

impl Terminal {
    /// Starts a command on a terminal of 24 rows and 80 columns, which controls it.
    #[must_use]
    pub fn start(command: &Command) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        tcsetwinsize(&keyboard, size(24, 80)).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let screen = rustix::fs::open(path.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
        let end = || screen.try_clone().unwrap();
        // A session of its own whose controlling terminal is its standard input.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            session.env(name, value.unwrap_or_default());
        }
        session.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = session.spawn().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (File::from(keyboard.try_clone().unwrap()), Arc::clone(&output));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, keyboard: File::from(keyboard), screen, output, seen: 0 }
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a text appears on the screen, after what was waited for before.
    pub fn expect(&mut self, text: &str) {
        let found = wait(|| self.rest().find(text));
        let Some(at) = found else {
            panic!("waited in vain for {text:?} on a terminal that shows {:?}", self.rest());
        };
        self.seen += at + text.len();
    }

    /// What is on the screen after what was waited for.
    #[must_use]
    pub fn rest(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()[self.seen..]).into_owned()
    }

    /// Changes the size of the window.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.keyboard, size(rows, columns)).unwrap();
    }

    /// The terminal hands over each key as it is typed, without showing it: raw mode.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.screen).unwrap().local_modes;
        !modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the command's end; its exit code, `None` when a signal ended it.
    pub fn finish(&mut self) -> Option<i32> {
        match wait(|| self.child.try_wait().unwrap()) {
            Some(status) => status.code(),
            None => panic!("the command does not end; its terminal shows {:?}", self.rest()),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
