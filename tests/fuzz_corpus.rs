//! Feeds every saved input of the fuzz corpus to its target, on the stable toolchain.

use std::fs;
use std::path::Path;

use support::fuzz::TARGETS;

#[test]
fn every_saved_input_is_handled() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let directory = corpus.join(name);
        let inputs = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("list {}: {error}", directory.display()));
        let mut count = 0;
        for entry in inputs {
            target(&fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} holds no input", directory.display());
    }
}

#[test]
fn every_target_has_a_fuzzer() {
    let fuzzers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    for (name, _) in TARGETS {
        assert!(fuzzers.join(format!("{name}.rs")).is_file(), "fuzz/fuzz_targets lacks {name}.rs");
    }
}
