use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits)
}

/// `inside/` is the root; `outside/` holds what must never be touched.
struct Arena {
    directory: tempfile::TempDir,
    root: Root,
}

impl Arena {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("inside")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/secret"), "secret").unwrap();
        let root = Root::open(directory.path().join("inside")).unwrap();
        Self { directory, root }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.directory.path().join("inside").join(path)
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    fn outside_is_untouched(&self) -> bool {
        let names: Vec<_> =
            fs::read_dir(self.outside()).unwrap().map(|name| name.unwrap()).collect();
        names.len() == 1 && fs::read(self.outside().join("secret")).unwrap() == b"secret"
    }

    /// Runs `work` while another thread keeps exchanging `inside/a` (a directory) with `inside/b` (a link to
    /// `outside`).
    fn race<T>(&self, work: impl FnOnce() -> T) -> T {
        fs::create_dir_all(self.inside("a")).unwrap();
        symlink(self.outside(), self.inside("b")).unwrap();
        let stop = AtomicBool::new(false);
        let attacker = Root::open(self.inside("")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    attacker.rename("a", "b", RenameFlags::EXCHANGE).unwrap();
                }
            });
            let result = work();
            stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

#[test]
fn paths_split_into_directory_and_name() {
    let cases: [(&str, Option<(&str, &str)>); 12] = [
        ("a", Some((".", "a"))),
        ("/a", Some(("/", "a"))),
        ("a/b", Some(("a/", "b"))),
        ("a/b//", Some(("a/", "b"))),
        ("a/../b", Some(("a/../", "b"))),
        ("..a", Some((".", "..a"))),
        ("", None),
        ("/", None),
        (".", None),
        ("a/.", None),
        ("a/..", None),
        ("../", None),
    ];
    for (path, expected) in cases {
        let found = split(Path::new(path)).ok();
        let expected = expected.map(|(directory, name)| (Path::new(directory), OsStr::new(name)));
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn dots_and_absolute_links_stay_inside() {
    let arena = Arena::new();
    fs::write(arena.inside("secret"), "inside").unwrap();
    symlink("/secret", arena.inside("absolute")).unwrap();
    symlink("../../../../secret", arena.inside("climbing")).unwrap();
    for path in ["absolute", "climbing", "/secret", "../../secret", "/../outside/../secret"] {
        let read = arena.root.read(path, 100);
        if path.contains("outside") {
            assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound, "{path}");
        } else {
            assert_eq!(read.unwrap(), b"inside", "{path}");
        }
    }
}

#[test]
fn reading_refuses_fifos_directories_and_large_files() {
    let arena = Arena::new();
    fs::create_dir(arena.inside("directory")).unwrap();
    fs::write(arena.inside("large"), [0; 11]).unwrap();
    rustix::fs::mkfifoat(CWD, arena.inside("fifo"), mode(0o600)).unwrap();
    for (path, kind) in [
        ("directory", ErrorKind::InvalidInput),
        ("fifo", ErrorKind::InvalidInput),
        ("large", ErrorKind::Exhausted),
        ("missing", ErrorKind::NotFound),
    ] {
        assert_eq!(arena.root.read(path, 10).unwrap_err().kind(), kind, "{path}");
    }
}

#[test]
fn magic_links_are_refused() {
    let root = Root::open("/proc").unwrap();
    let error = root.open_beneath("self/root", OFlags::PATH, Mode::empty()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
}

#[test]
fn descriptors_are_close_on_exec() {
    let arena = Arena::new();
    let fd = arena.root.create_dir_all("a/b", mode(0o755)).unwrap();
    let flags = rustix::io::fcntl_getfd(&fd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn missing_directories_are_created_through_dangling_links() {
    let arena = Arena::new();
    fs::create_dir(arena.inside("etc")).unwrap();
    symlink("../run/resolve/stub.conf", arena.inside("etc/resolv.conf")).unwrap();
    symlink("/var/lib", arena.inside("data")).unwrap();
    arena.root.create_file_all("etc/resolv.conf", mode(0o644), mode(0o755)).unwrap();
    assert!(arena.inside("run/resolve/stub.conf").metadata().unwrap().is_file());
    arena.root.create_dir_all("/data/x/../y/../../z", mode(0o700)).unwrap();
    assert!(arena.inside("var/z").is_dir());
    assert_eq!(arena.inside("var/z").metadata().unwrap().mode() & 0o777, 0o700);
    // Twice is fine, and a file in the way is an error.
    arena.root.create_dir_all("data/x", mode(0o700)).unwrap();
    let error = arena.root.create_dir_all("etc/resolv.conf/x", mode(0o700)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    symlink("loop", arena.inside("loop")).unwrap();
    assert!(arena.root.create_dir_all("loop/x", mode(0o700)).is_err());
    assert!(arena.outside_is_untouched());
}

#[test]
fn removal_is_deep_and_never_follows_links() {
    let arena = Arena::new();
    // Deeper than the descriptors held, and longer than PATH_MAX.
    let mut at = arena.root.create_dir_all("tree", mode(0o755)).unwrap();
    for _ in 0..700 {
        rustix::fs::mkdirat(&at, "directory", mode(0o755)).unwrap();
        rustix::fs::symlinkat(arena.outside(), &at, "link").unwrap();
        at = rustix::fs::openat(&at, "directory", OFlags::PATH, Mode::empty()).unwrap();
    }
    arena.root.remove_all("tree").unwrap();
    arena.root.remove_all("tree").unwrap();
    assert!(!arena.inside("tree").exists());
    symlink(arena.outside(), arena.inside("link")).unwrap();
    arena.root.remove_all("link").unwrap();
    assert!(arena.outside_is_untouched());
}

#[test]
fn a_racing_exchange_never_leads_a_write_outside() {
    let arena = Arena::new();
    arena.race(|| {
        for round in 0..10_000_u32 {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            drop(arena.root.open_beneath("a/written", flags, mode(0o600)));
            drop(arena.root.create_dir_all(format!("a/d{}/e", round % 7), mode(0o700)));
            drop(arena.root.create_file_all("a/f/g", mode(0o600), mode(0o700)));
            drop(arena.root.symlink("x", "a/link"));
            drop(arena.root.unlink("a/secret"));
            drop(arena.root.remove_all("a/f"));
        }
    });
    assert!(arena.outside_is_untouched());
}

#[test]
fn a_racing_exchange_never_leads_a_removal_outside() {
    let arena = Arena::new();
    arena.race(|| {
        for _ in 0..3_000 {
            for name in ["c", "d"] {
                drop(arena.root.create_dir_all(format!("a/{name}/{name}"), mode(0o700)));
            }
            drop(arena.root.remove_contents("a"));
            drop(arena.root.remove_all("/a/secret"));
        }
    });
    assert!(arena.outside_is_untouched());
}

/// The proof that the two tests above test something: the same race against joined strings does escape.
#[test]
fn the_same_race_defeats_joined_paths() {
    let arena = Arena::new();
    let escaped = arena.race(|| {
        (0..2_000_000).any(|_| {
            // Checks first, as naive code does, then writes.
            let path = arena.inside("a");
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                drop(fs::write(path.join("written"), "x"));
            }
            arena.outside().join("written").exists()
        })
    });
    assert!(escaped, "the attacker never won; the race tests prove nothing");
}

#[test]
fn the_private_procfs_serves_values_and_refuses_magic_links() {
    let proc = Proc::open().unwrap();
    let status = proc.open_beneath("self/status", OFlags::RDONLY).unwrap();
    let mut text = String::new();
    File::from(status).read_to_string(&mut text).unwrap();
    assert!(text.contains(&format!("Pid:\t{}\n", std::process::id())));
    for path in ["self/root", "self/exe", "../etc"] {
        assert!(proc.open_beneath(path, OFlags::PATH).is_err(), "{path}");
    }
}

#[test]
fn an_o_path_descriptor_opens_again_for_reading() {
    let arena = Arena::new();
    fs::write(arena.inside("file"), "content").unwrap();
    let fd = arena.root.resolve("file").unwrap();
    let readable = Proc::open().unwrap().reopen(&fd, OFlags::RDONLY).unwrap();
    let mut text = String::new();
    File::from(readable).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
}
