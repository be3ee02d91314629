use proptest::prelude::*;

use super::*;

fn zone(external: External) -> Zone {
    let mut zone = Zone::new(external);
    zone.insert("Web_1", "10.89.0.2".parse().unwrap()).unwrap();
    zone.insert("app", "10.89.0.2".parse().unwrap()).unwrap();
    zone.insert("app", "10.89.0.3".parse().unwrap()).unwrap();
    zone
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(message: &Message, zone: &Zone) -> Message {
    match answer(&message.to_vec().unwrap(), zone, Protocol::Udp) {
        Answer::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("want a reply, have {other:?}"),
    }
}

#[test]
fn known_names_are_answered_whatever_their_case() {
    let zone = zone(External::Forwarded);
    for name in ["web_1.", "WEB_1.", "Web_1."] {
        let message = query(name, RecordType::A);
        let reply = ask(&message, &zone);
        assert_eq!(reply.metadata.id, message.metadata.id);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);
        assert_eq!(reply.queries, message.queries);
        assert_eq!(reply.answers.len(), 1, "{name}");
        assert_eq!(reply.answers[0].data, RData::A(A("10.89.0.2".parse().unwrap())));
    }
}

#[test]
fn a_known_name_without_the_asked_type_has_an_empty_answer() {
    for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT] {
        let reply = ask(&query("app.", kind), &zone(External::Forwarded));
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.answers.is_empty());
    }
}

#[test]
fn clients_spread_over_the_addresses_of_a_name() {
    let zone = zone(External::Forwarded);
    let first = |id| {
        let mut message = query("app.", RecordType::A);
        message.metadata.id = id;
        ask(&message, &zone).answers[0].data.clone()
    };
    assert_ne!(first(0), first(1));
    assert_eq!(first(0), first(2));
}

#[test]
fn addresses_are_found_in_reverse() {
    let zone = zone(External::Forwarded);
    let reply = ask(&query("2.0.89.10.in-addr.arpa.", RecordType::PTR), &zone);
    assert_eq!(reply.answers[0].data, RData::PTR(PTR(Name::from_ascii("web_1.").unwrap())));
    let unknown = query("9.0.89.10.in-addr.arpa.", RecordType::PTR).to_vec().unwrap();
    assert_eq!(answer(&unknown, &zone, Protocol::Udp), Answer::Forward);
}

#[test]
fn foreign_names_are_forwarded_or_unknown() {
    let message = query("example.com.", RecordType::A);
    let bytes = message.to_vec().unwrap();
    assert_eq!(answer(&bytes, &zone(External::Forwarded), Protocol::Udp), Answer::Forward);
    let internal = zone(External::Unknown);
    assert_eq!(ask(&message, &internal).metadata.response_code, ResponseCode::NXDomain);
    for kind in [RecordType::MX, RecordType::TXT, RecordType::ANY, RecordType::PTR] {
        let reply = ask(&query("secret.example.com.", kind), &internal);
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    }
    assert_eq!(ask(&query("app.", RecordType::A), &internal).answers.len(), 2);
}

#[test]
fn a_long_answer_is_truncated_by_udp_and_whole_by_tcp() {
    let mut zone = Zone::new(External::Forwarded);
    for last in 1..=200 {
        zone.insert("many", IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))).unwrap();
    }
    let bytes = query("many.", RecordType::A).to_vec().unwrap();
    let Answer::Reply(reply) = answer(&bytes, &zone, Protocol::Udp) else { panic!("want a reply") };
    assert!(reply.len() <= 512);
    let short = Message::from_vec(&reply).unwrap();
    assert!(short.metadata.truncation && !short.answers.is_empty());
    let Answer::Reply(reply) = answer(&bytes, &zone, Protocol::Tcp) else { panic!("want a reply") };
    let whole = Message::from_vec(&reply).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
}

#[test]
fn responses_are_never_answered_and_garbage_is_refused() {
    let zone = zone(External::Forwarded);
    let mut response = query("app.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    assert_eq!(answer(&response.to_vec().unwrap(), &zone, Protocol::Udp), Answer::Drop);
    assert_eq!(answer(&[0; 11], &zone, Protocol::Udp), Answer::Drop);
    let mut cut = query("app.", RecordType::A).to_vec().unwrap();
    cut.truncate(15);
    let Answer::Reply(reply) = answer(&cut, &zone, Protocol::Udp) else { panic!("want a reply") };
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, ResponseCode::FormErr);
}

#[test]
fn names_that_cannot_be_asked_for_are_refused() {
    let mut zone = Zone::default();
    let long = "a".repeat(64);
    for name in ["", ".", "a..b", "a b", "ä", long.as_str()] {
        assert!(zone.insert(name, "10.0.0.1".parse().unwrap()).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = answer(&bytes, &zone(External::Unknown), Protocol::Udp);
    }

    #[test]
    fn an_internal_zone_forwards_nothing(name in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){0,4}", kind in 0_u16..300) {
        let bytes = query(&format!("{name}."), RecordType::from(kind)).to_vec().unwrap();
        prop_assert_ne!(answer(&bytes, &zone(External::Unknown), Protocol::Udp), Answer::Forward);
    }

    #[test]
    fn flipped_bytes_are_survived(at in 0_usize..64, value in any::<u8>()) {
        let mut bytes = query("web_1.", RecordType::A).to_vec().unwrap();
        let length = bytes.len();
        bytes[at % length] = value;
        let _ = answer(&bytes, &zone(External::Forwarded), Protocol::Tcp);
    }
}
