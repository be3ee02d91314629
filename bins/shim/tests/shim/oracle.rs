//! The ttrpc crate's client, which is not ours, against the shim.

use brig_shim_protocol::task::{self, method};
use brig_shim_protocol::types::Status;
use prost::Message;
use ttrpc::proto::{Code, Request};

use crate::support::{Setup, Shim, skip};

#[test]
fn the_ttrpc_crate_is_served_with_calls_that_overlap() {
    if skip("the_ttrpc_crate_is_served_with_calls_that_overlap") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client =
            ttrpc::asynchronous::Client::connect(&format!("unix://{}", shim.socket.display()))
                .await
                .unwrap();
        let call = |name: &str, payload: Vec<u8>| {
            let client = client.clone();
            let request = Request {
                service: task::SERVICE_V2.to_owned(),
                method: name.to_owned(),
                payload,
                ..Default::default()
            };
            async move { client.request(request).await }
        };
        let id = shim.id.clone();
        let start = task::StartRequest { id: id.clone(), ..Default::default() };
        call(method::START, start.encode_to_vec()).await.unwrap();
        let wait = task::WaitRequest { id: id.clone(), ..Default::default() };
        let wait = tokio::spawn(call(method::WAIT, wait.encode_to_vec()));
        // Wait is outstanding on the same connection while others are answered.
        let state = task::StateRequest { id: id.clone(), ..Default::default() };
        for _ in 0..100 {
            let response = call(method::STATE, state.encode_to_vec()).await.unwrap();
            let state = task::StateResponse::decode(&*response.payload).unwrap();
            assert_eq!(state.status(), Status::Running);
        }
        let missing = task::StateRequest { id: "missing".into(), ..Default::default() };
        match call(method::STATE, missing.encode_to_vec()).await {
            Err(ttrpc::Error::RpcStatus(status)) => assert_eq!(status.code(), Code::NotFound),
            other => panic!("{other:?}"),
        }
        let kill = task::KillRequest { id, signal: 9, ..Default::default() };
        call(method::KILL, kill.encode_to_vec()).await.unwrap();
        let response = wait.await.unwrap().unwrap();
        let response = task::WaitResponse::decode(&*response.payload).unwrap();
        assert_eq!(response.exit_status, 137);
    });
    shim.end();
}
