//! Terminals: raw mode, window size, detach keys, exit codes, signals, and a terminal that is itself again afterwards.

use std::process::Command;

use rustix::process::Signal;
use support::engine::{Background, Engine, Terminal, eventually};

/// Both command lines.
const CLIENTS: [&str; 2] = ["docker", "brig"];

fn command(engine: &Engine, client: &str, words: &[&str]) -> Command {
    match client {
        "docker" => engine.docker_command(words),
        _ => engine.brig_command(words),
    }
}

#[test]
fn a_session_has_a_terminal_of_the_right_size_and_passes_its_exit_code_on() {
    let Some(engine) = Engine::start("tty-run") else { return };
    engine.load_busybox();
    for client in CLIENTS {
        let run = ["run", "--rm", "-it", "--name", client, "busybox", "sh"];
        let mut terminal = Terminal::start(&command(&engine, client, &run));
        terminal.expect("# ");
        eventually("raw mode", || terminal.is_raw().then_some(()));
        terminal.send("tty; stty size; echo term=$TERM\r");
        terminal.expect("/dev/pts/0");
        terminal.expect("24 80");
        terminal.expect("term=xterm");
        terminal.resize(40, 132);
        eventually("the new size inside", || {
            let size = engine.docker(&["exec", client, "stty", "-F", "/dev/pts/0", "size"]);
            (size.stdout.trim() == "40 132").then_some(())
        });
        // Ctrl-C goes to the foreground program inside, not to the client.
        terminal.send("sleep 1000\r");
        terminal.expect("sleep 1000");
        eventually("the sleep", || {
            engine.docker(&["top", client]).stdout.contains("sleep 1000").then_some(())
        });
        terminal.send("\x03");
        terminal.expect("# ");
        terminal.send("exit 42\r");
        assert_eq!(terminal.finish(), Some(42), "{client}: {}", terminal.rest());
        assert!(!terminal.is_raw(), "{client} leaves the terminal raw");
    }
}

#[test]
fn an_exec_session_has_a_terminal_of_its_own() {
    let Some(engine) = Engine::start("tty-exec") else { return };
    engine.load_busybox();
    let _ = engine.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).success();
    for client in CLIENTS {
        let exec = ["exec", "-it", "-e", "WHO=me", "-w", "/tmp", "box", "sh"];
        let mut terminal = Terminal::start(&command(&engine, client, &exec));
        terminal.expect("# ");
        terminal.resize(30, 99);
        eventually("the new size inside", || {
            terminal.send("stty size\r");
            terminal.rest().contains("30 99").then_some(())
        });
        terminal.send("echo who=$WHO; exit 7\r");
        terminal.expect("who=me");
        assert_eq!(terminal.finish(), Some(7), "{client}: {}", terminal.rest());
        assert!(!terminal.is_raw(), "{client} leaves the terminal raw");
    }
}

#[test]
fn detach_keys_leave_the_container_running() {
    let Some(engine) = Engine::start("tty-detach") else { return };
    engine.load_busybox();
    for client in CLIENTS {
        let run = ["run", "-it", "--name", client, "busybox", "sh"];
        let mut terminal = Terminal::start(&command(&engine, client, &run));
        terminal.expect("# ");
        // Half of the keys is input like any other.
        terminal.send("echo \x10kept\r");
        terminal.expect("kept");
        terminal.send("\x10\x11");
        assert_eq!(terminal.finish(), Some(0), "{client}: {}", terminal.rest());
        assert!(!terminal.is_raw());
        assert_eq!(engine.inspect(client, "{{.State.Running}}"), "true");
        let attach = ["attach", "--detach-keys", "ctrl-x,x", client];
        let mut terminal = Terminal::start(&command(&engine, client, &attach));
        // The size of the window is told, which makes the shell draw its prompt again; typing shows that it is there.
        terminal.send("echo a$((1+1))b\r");
        terminal.expect("a2b");
        terminal.send("\x18x");
        let _ = terminal.finish();
        assert_eq!(engine.inspect(client, "{{.State.Running}}"), "true");
        let mut terminal = Terminal::start(&command(&engine, client, &["attach", client]));
        terminal.send("exit 9\r");
        assert_eq!(terminal.finish(), Some(9), "{client}: {}", terminal.rest());
    }
}

#[test]
fn the_terminal_is_itself_again_when_brigd_dies_or_the_client_is_ended() {
    let Some(mut engine) = Engine::start("tty-crash") else { return };
    engine.load_busybox();
    for client in CLIENTS {
        let run = ["run", "-it", "--name", client, "busybox", "sh"];
        let mut terminal = Terminal::start(&command(&engine, client, &run));
        terminal.expect("# ");
        eventually("raw mode", || terminal.is_raw().then_some(()));
        engine.crash();
        let code = terminal.finish();
        assert!(code != Some(0), "{client} takes a lost daemon for success");
        assert!(!terminal.is_raw(), "{client} leaves the terminal raw");
        engine.restart();
        // The shell lives on, and its terminal with it.
        let mut terminal = Terminal::start(&command(&engine, client, &["attach", client]));
        terminal.send("echo a$((1+1))b\r");
        terminal.expect("a2b");
        // The shell of a terminal ignores SIGTERM, so that the client stays until it is hung up.
        terminal.signal(Signal::TERM);
        terminal.send("exit 3\r");
        assert_eq!(terminal.finish(), Some(3), "{client}: {}", terminal.rest());
        assert!(!terminal.is_raw());
    }
}

#[test]
fn input_without_a_terminal_reaches_the_process_and_ends_it() {
    let Some(engine) = Engine::start("stdin") else { return };
    engine.load_busybox();
    for client in CLIENTS {
        let run = ["run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end >&2; exit 4"];
        let mut session = Background::start(command(&engine, client, &run));
        session.send("a line\n");
        session.expect("a line");
        session.close_input();
        let (code, output) = session.finish();
        assert_eq!((code, output.as_str()), (Some(4), "a line\nend\n"), "{client}");
        let refused = ["run", "--rm", "-it", "busybox", "true"];
        let mut session = Background::start(command(&engine, client, &refused));
        let (code, output) = session.finish();
        assert_ne!(code, Some(0));
        assert!(
            output.contains("not a") && output.to_lowercase().contains("terminal")
                || output.contains("TTY"),
            "{output}"
        );
    }
}

/// Says that it is ready, then ends with 100 and the number of the signal it gets. What it waits for runs beside it: a
/// shell runs no trap while a command of its foreground runs.
const TRAPS: &str = "for s in 1 2 3 10 12 15; do trap \"exit $((100+$s))\" $s; done; echo ready; \
                     while :; do sleep 1000 & wait; done";

#[test]
fn signals_go_to_the_process_unless_they_are_kept() {
    let Some(engine) = Engine::start("signals") else { return };
    engine.load_busybox();
    for client in CLIENTS {
        for (signal, code) in
            [(Signal::INT, 102), (Signal::TERM, 115), (Signal::HUP, 101), (Signal::USR1, 110)]
        {
            let run = ["run", "--rm", "busybox", "sh", "-c", TRAPS];
            let mut session = Background::start(command(&engine, client, &run));
            session.expect("ready");
            session.signal(signal);
            let (status, output) = session.finish();
            assert_eq!((status, output.as_str()), (Some(code), "ready\n"), "{client} {signal:?}");
        }
        // Nobody catches it here, so that the process ends as the signal says, which is what the client ends with.
        let run = ["run", "--rm", "--init", "busybox", "sh", "-c", "echo ready; exec sleep 1000"];
        let mut session = Background::start(command(&engine, client, &run));
        session.expect("ready");
        session.signal(Signal::TERM);
        assert_eq!(session.finish().0, Some(143), "{client}");
        // Kept from the process, the signal ends the client alone; docker's wants three of them.
        let run = ["run", "--sig-proxy=false", "--name", client, "busybox", "sh", "-c", TRAPS];
        let mut session = Background::start(command(&engine, client, &run));
        session.expect("ready");
        eventually("the end of the client", || {
            // Not SIGINT, which is ignored where the tests were started in the background.
            session.signal(Signal::TERM);
            session.has_ended().then_some(())
        });
        let (status, output) = session.finish();
        assert_ne!(status, Some(0), "{client}: {output}");
        assert_eq!(engine.inspect(client, "{{.State.Running}}"), "true");
        // Whoever attaches passes signals on as well, but for exec, whose process is not the container's.
        let mut session = Background::start(command(&engine, client, &["attach", client]));
        // Again and again: what is written before the client is attached is not for it.
        eventually("what the container writes", || {
            let _ = engine.docker(&["exec", client, "sh", "-c", "echo attached > /proc/1/fd/1"]);
            session.output().contains("attached").then_some(())
        });
        session.signal(Signal::TERM);
        assert_eq!(session.finish().0, Some(115), "{client}");
    }
}
