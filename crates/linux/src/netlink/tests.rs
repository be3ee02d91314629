use super::*;

fn error_reply(sequence: u32, code: i32, explanation: Option<&str>) -> Vec<u8> {
    let mut body = code.to_ne_bytes().to_vec();
    body.extend(&frame(20, NLM_F_REQUEST, sequence, &[])[..HEADER_LENGTH]);
    let mut flags = NLM_F_CAPPED;
    if let Some(text) = explanation {
        flags |= NLM_F_ACK_TLVS;
        body.extend(u16::try_from(4 + text.len() + 1).unwrap().to_ne_bytes());
        body.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        body.extend(text.as_bytes());
        body.push(0);
    }
    frame(NLMSG_ERROR, flags, sequence, &body)
}

#[test]
fn refusals_carry_errno_and_the_kernels_text() {
    let bytes = error_reply(7, -17, Some("that exists"));
    let reply = Replies::new(&bytes).next().unwrap().unwrap();
    assert_eq!(reply.sequence, 7);
    let Kind::Error(Some(refusal)) = reply.kind else { panic!("want a refusal") };
    let error = refusal.into_error("create link eth0".into());
    assert_eq!(error.kind(), crate::ErrorKind::AlreadyExists);
    assert_eq!(error.to_string(), "create link eth0 (the kernel says: that exists)");
}

#[test]
fn an_acknowledgement_is_no_error() {
    let bytes = error_reply(7, 0, None);
    let reply = Replies::new(&bytes).next().unwrap().unwrap();
    assert!(matches!(reply.kind, Kind::Error(None)));
}

#[test]
fn malformed_answers_end_the_iteration() {
    let good = error_reply(1, 0, None);
    for cut in 1..good.len() {
        let replies: Vec<_> = Replies::new(&good[..cut]).collect();
        assert!(replies.len() <= 1, "{cut}");
    }
    for length in [0_u32, 3, 15, 17, u32::MAX] {
        let mut bytes = good.clone();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        assert!(Replies::new(&bytes).count() <= 2, "{length}");
    }
}

#[test]
fn a_batch_is_numbered_and_acknowledged_once() {
    let mut batch = Batch::new(10);
    batch.push(0, 0, vec![1, 0, 0, 0, 9], "first");
    batch.push(3, 0, vec![1, 0, 0, 0], "second");
    let (bytes, last) = batch.encode(40);
    assert_eq!(last, 42);
    let mut rest = &bytes[..];
    let mut seen = Vec::new();
    while let Some((header, _, after)) = split_message(rest) {
        seen.push((header.message_type, header.sequence_number, header.flags & NLM_F_ACK != 0));
        rest = after;
    }
    assert_eq!(seen, [(0x10, 40, false), (0xa00, 41, false), (0xa03, 42, true), (0x11, 43, false)]);
}

#[test]
fn the_kernel_answers_dumps_and_explains_refusals() {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let links =
        socket.dump("list links", &RouteNetlinkMessage::GetLink(LinkMessage::default())).unwrap();
    assert!(!links.is_empty());
    let mut message = LinkMessage::default();
    message.header.index = 0x7fff_fff0;
    let error =
        socket.request("delete link", &RouteNetlinkMessage::DelLink(message), 0).unwrap_err();
    assert!(
        matches!(error.kind(), crate::ErrorKind::NotFound | crate::ErrorKind::Denied),
        "{error}"
    );
}
