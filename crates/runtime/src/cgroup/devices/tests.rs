//! Rules, the v1 model and the eBPF program must give the same answers.

use super::*;

fn rule(allow: bool, text: &str) -> LinuxDeviceCgroup {
    let json = {
        let mut fields = text.split([' ', ':']);
        let kind = fields.next().unwrap();
        let mut number = || fields.next().and_then(|n| n.parse::<i64>().ok());
        let (major, minor) = (number(), number());
        serde_json::json!({"allow": allow, "type": kind, "major": major, "minor": minor,
            "access": text.rsplit(' ').next()})
    };
    serde_json::from_value(json).unwrap()
}

fn docker() -> Vec<LinuxDeviceCgroup> {
    vec![rule(false, "a *:* rwm"), rule(true, "c 10:229 rwm"), rule(true, "b 8:* r")]
}

/// The specification, literally: the last rule that speaks of an access decides it.
fn verdict(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    let device = Selector { kind: Some(kind), major: Some(major), minor: Some(minor) };
    [Access::MKNOD, Access::READ, Access::WRITE].into_iter().filter(|bit| access & bit.0 != 0).all(
        |bit| {
            rules
                .iter()
                .rev()
                .find(|rule| rule.access.0 & bit.0 != 0 && rule.selector.covers(device))
                .is_some_and(|rule| rule.allow)
        },
    )
}

fn run(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    let code = program::compile(rules);
    let number = if kind == Kind::Block { 1 } else { 2 };
    program::run(&code, [u32::from(access) << 16 | number, major, minor])
}

fn assert_same_answers(rules: &[Rule]) {
    for kind in [Kind::Block, Kind::Character] {
        for (major, minor) in [(1, 3), (1, 4), (5, 2), (8, 0), (8, 1), (10, 229), (136, 7)] {
            for access in 0..8 {
                let expected = verdict(rules, kind, major, minor, access);
                let got = run(rules, kind, major, minor, access);
                assert_eq!(got, expected, "{kind:?} {major}:{minor} {access} {rules:?}");
            }
        }
    }
}

#[test]
fn programs_answer_as_the_specification_says() {
    let lists = [
        vec![],
        docker(),
        vec![rule(true, "a *:* rwm")],
        vec![rule(true, "a *:* rwm"), rule(false, "b 8:1 w"), rule(true, "b 8:* r")],
        vec![rule(true, "c *:* rw"), rule(false, "c 1:* w"), rule(true, "c 1:4 m")],
    ];
    for list in lists {
        let rules = parse(&list).unwrap();
        assert_same_answers(&rules);
        let without_defaults: Vec<Rule> =
            list.iter().map(|rule| parse_rule(rule).unwrap()).collect();
        assert_same_answers(&without_defaults);
    }
}

proptest::proptest! {
    #[test]
    fn random_rules_agree_with_their_program(
        seeds in proptest::collection::vec((proptest::bool::ANY, 0_u8..3, 0_u8..4, 0_u8..4, 1_u8..8), 0..12)
    ) {
        let rules: Vec<Rule> = seeds
            .into_iter()
            .map(|(allow, kind, major, minor, access)| {
                let kind = [None, Some(Kind::Block), Some(Kind::Character)][usize::from(kind)];
                let number = |index: u8, values: [Option<u32>; 4]| values[usize::from(index)];
                let selector = Selector {
                    kind,
                    major: number(major, [None, Some(1), Some(8), Some(136)]),
                    minor: number(minor, [None, Some(0), Some(3), Some(7)]),
                };
                Rule { allow, selector, access: Access(access) }
            })
            .collect();
        assert_same_answers(&rules);
    }
}

#[test]
fn v1_lists_start_from_nothing_allowed() {
    let target = Exceptions::from_rules(&parse(&docker()).unwrap()).unwrap();
    let writes = Exceptions::parse_list("a *:* rwm\n").difference(&target);
    assert_eq!(writes[0], ("devices.deny", "a *:* rwm".to_owned()));
    assert!(writes.contains(&("devices.allow", "c 10:229 rwm".to_owned())));
    assert!(writes.contains(&("devices.allow", "b 8:* r".to_owned())));
    assert!(writes.contains(&("devices.allow", "c 136:* rwm".to_owned())));
    assert!(writes.contains(&("devices.allow", "b *:* m".to_owned())));
}

#[test]
fn v1_updates_write_only_what_changes() {
    let before = Exceptions::parse_list("c 1:3 rwm\nb 8:* r\nc 5:2 rw\n");
    let rules = [rule(true, "c 1:3 rwm"), rule(true, "c 5:2 r"), rule(true, "c 10:229 w")];
    let rules: Vec<Rule> = rules.iter().map(|rule| parse_rule(rule).unwrap()).collect();
    let after = Exceptions::from_rules(&rules).unwrap();
    let expected = [
        ("devices.allow", "c 5:2 r"),
        ("devices.allow", "c 10:229 w"),
        ("devices.deny", "b 8:* r"),
        ("devices.deny", "c 5:2 w"),
    ];
    assert_eq!(before.difference(&after), expected.map(|(file, line)| (file, line.to_owned())));
}

#[test]
fn v1_privileged_containers_are_allowed_everything() {
    let target = Exceptions::from_rules(&parse(&[rule(true, "a *:* rwm")]).unwrap()).unwrap();
    assert!(target.allow_by_default && target.list.is_empty());
}

#[test]
fn v1_refuses_what_its_lists_cannot_say() {
    let rules = [rule(true, "c 8:* rwm"), rule(false, "c 8:1 w")];
    let rules: Vec<Rule> = rules.iter().map(|rule| parse_rule(rule).unwrap()).collect();
    let error = Exceptions::from_rules(&rules).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("deny c 8:1 w"), "{error}");
}

#[test]
fn impossible_rules_are_refused_by_name() {
    for text in ["c 1:3 rwx", "p 1:3 rwm", "a 1:3 rwm", "c -2:3 r", "c 9999999999:3 r"] {
        let error = parse(&[rule(true, text)]).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput, "{text}");
    }
}
