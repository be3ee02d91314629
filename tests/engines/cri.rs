//! Kubernetes' way to containers: the runtime interface of containerd's plugin, asked as a kubelet asks it, with our shim
//! below. A pod's containers share one shim and the pod's network.

mod message;

use std::fs;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message;
use support::engine::{busybox_layer, pack_image_that_runs};
use tokio::net::UnixStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codec::ProstCodec;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use self::message as cri;
use crate::host::{Host, IMAGE};

const SOCKET: &str = "/run/containerd/containerd.sock";
const PAUSE: &str = "docker.io/library/pause:latest";
const RUNNING: i32 = 1;
const EXITED: i32 = 2;

/// containerd with its plugin, and a connection to it.
struct Kubelet {
    host: Host,
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Kubelet {
    fn start(test: &str) -> Option<Self> {
        let mut host = Host::start(test, &["containerd", "ctr", "/usr/lib/cni/ptp"])?;
        configure(&host);
        launch(&mut host);
        let (archive, sleep) = (host.path("pause.tar"), ["sleep", "100000"]);
        pack_image_that_runs(&archive, "pause", &[busybox_layer()], &sleep);
        for archive in ["busybox.tar", "pause.tar"] {
            let import = ["ctr", "--namespace", "k8s.io", "image", "import", &host.text(archive)];
            let _ = host.run(&import).success();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = host.outside(SOCKET);
        let channel = runtime.block_on(async {
            // Connected at the first question, and again after each loss.
            Endpoint::from_static("http://containerd").connect_with_connector_lazy(
                tower::service_fn(move |_| {
                    let socket = socket.clone();
                    async move { UnixStream::connect(socket).await.map(TokioIo::new) }
                }),
            )
        });
        let kubelet = Self { host, runtime, channel };
        kubelet.until_ready();
        Some(kubelet)
    }

    fn ask<Question, Answer>(&self, method: &str, question: Question) -> Result<Answer, String>
    where
        Question: Message + Send + Sync + 'static,
        Answer: Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}")).unwrap();
        let mut client = Grpc::new(self.channel.clone());
        let answer = self.runtime.block_on(async {
            client.ready().await.map_err(|error| error.to_string())?;
            let mut request = Request::new(question);
            request.set_timeout(Duration::from_secs(60));
            let codec = ProstCodec::<Question, Answer>::default();
            client.unary(request, path, codec).await.map_err(|status| status.to_string())
        });
        answer.map(tonic::Response::into_inner).map_err(|why| format!("{method}: {why}"))
    }

    fn until_ready(&self) {
        self.host.until("containerd's plugin is ready", || {
            let status = self.ask::<_, cri::Status>("Status", cri::Empty {});
            let conditions = status.ok().and_then(|status| status.status).unwrap_or_default();
            conditions.conditions.len() >= 2 && conditions.conditions.iter().all(|each| each.status)
        });
    }

    fn run_pod(&self) -> (String, cri::Pod) {
        let pod = cri::Pod {
            metadata: Some(cri::PodMetadata {
                name: "web".into(),
                uid: "uid-1".into(),
                namespace: "default".into(),
            }),
            hostname: "web-0".into(),
            log_directory: self.host.text("logs"),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            linux: Some(cri::PodOnLinux { cgroup_parent: format!("/{}", self.host.name) }),
        };
        let request = cri::RunPod { config: Some(pod.clone()), runtime_handler: "brig".into() };
        (self.ask::<_, cri::Id>("RunPodSandbox", request).unwrap().id, pod)
    }

    fn start_container(&self, pod: &(String, cri::Pod), name: &str, script: &str) -> String {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        let config = cri::Container {
            metadata: Some(cri::ContainerMetadata { name: name.into() }),
            image: Some(cri::Image { image: IMAGE.into() }),
            command: words,
            log_path: format!("{name}.log"),
            linux: Some(cri::ContainerOnLinux {
                resources: Some(cri::Resources { memory_limit: 64 << 20 }),
            }),
        };
        let request = cri::CreateContainer {
            pod: pod.0.clone(),
            config: Some(config),
            pod_config: Some(pod.1.clone()),
        };
        let created: cri::Id = self.ask("CreateContainer", request).unwrap();
        let _: cri::Empty = self.ask("StartContainer", created.clone()).unwrap();
        created.id
    }

    /// Runs a command in a container; answers its exit code and output.
    fn exec(&self, container: &str, script: &str) -> (i32, String) {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = cri::Exec { container: container.into(), command, timeout_seconds: 30 };
        let executed: cri::Executed = self.ask("ExecSync", request).unwrap();
        (executed.exit_code, String::from_utf8(executed.stdout).unwrap())
    }

    fn state(&self, container: &str) -> cri::ContainerState {
        let status = self.ask::<_, cri::ContainerStatus>("ContainerStatus", id(container));
        status.unwrap().status.unwrap()
    }

    fn shims(&self) -> usize {
        let processes = self.host.run(&["ps", "-eo", "args="]).success();
        processes.lines().filter(|line| line.contains("containerd-shim-brig-v1")).count()
    }
}

fn id(id: &str) -> cri::Id {
    cri::Id { id: id.to_owned() }
}

/// containerd's configuration with the plugin on, and a network of two ends for pods.
fn configure(host: &Host) {
    let network = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"ptp","ipam":{"type":
        "host-local","ranges":[[{"subnet":"10.88.77.0/24"}]],"dataDir":"/run/cni-addresses"}}]}"#;
    fs::create_dir(host.path("cni")).unwrap();
    fs::write(host.path("cni/10-pods.conflist"), network).unwrap();
    let (root, networks) = (host.text("containerd"), host.text("cni"));
    // The score needs a capability that machines for tests may lack.
    let config = format!(
        r#"version = 2
root = {root:?}
state = "/run/containerd"
[grpc]
address = {SOCKET:?}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {PAUSE:?}
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = {networks:?}
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "brig"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.brig]
runtime_type = "io.containerd.brig.v1"
"#
    );
    fs::write(host.path("containerd.toml"), config).unwrap();
}

fn launch(host: &mut Host) {
    let config = host.text("containerd.toml");
    host.spawn(&["containerd", "--config", &config], "engine.log");
    host.until("containerd answers", || host.run(&["ctr", "version"]).code == Some(0));
}

#[test]
fn a_pod_of_kubernetes_runs_its_containers_in_one_shim() {
    let Some(mut kubelet) = Kubelet::start("cri") else { return };
    let version: cri::Version = kubelet.ask("Version", cri::Empty {}).unwrap();
    assert_eq!(version.runtime_name, "containerd");
    let pod = kubelet.run_pod();
    let serve = "echo serving; nc -l -p 8080 -e echo hello; echo done >&2; sleep 100000";
    let server = kubelet.start_container(&pod, "server", serve);
    let client = kubelet.start_container(&pod, "client", "trap 'exit 5' TERM; sleep 100000 & wait");
    assert_eq!(kubelet.shims(), 1);
    let status: cri::PodStatus = kubelet.ask("PodSandboxStatus", id(&pod.0)).unwrap();
    let status = status.status.unwrap();
    assert_eq!(status.state, 0, "{status:?}");
    let address = status.network.unwrap().ip;
    assert!(address.starts_with("10.88.77."), "{address}");

    // What containers of a pod share, and what not.
    assert_eq!(kubelet.exec(&client, "hostname"), (0, "web-0\n".into()));
    let inside = kubelet.exec(&client, "ip -4 addr show eth0");
    assert!(inside.1.contains(&address), "{inside:?}");
    kubelet
        .host
        .until("the server listens", || kubelet.exec(&client, "nc 127.0.0.1 8080").1 == "hello\n");
    assert_eq!(kubelet.exec(&client, "exit 9").0, 9);
    // The first process is that of the pod's own container.
    assert_eq!(kubelet.exec(&client, "cat /proc/1/comm"), (0, "sleep\n".into()));
    kubelet.host.until("the log is written", || {
        let log = kubelet.host.read("logs/server.log");
        log.contains(" stdout F serving") && log.contains(" stderr F done")
    });

    limits_and_figures(&kubelet, &client);

    // containerd goes and comes back; the pod stays as it is.
    kubelet.host.kill_daemon();
    launch(&mut kubelet.host);
    kubelet.until_ready();
    assert_eq!((kubelet.state(&server).state, kubelet.state(&client).state), (RUNNING, RUNNING));
    assert_eq!(kubelet.exec(&server, "echo again"), (0, "again\n".into()));

    let stop = cri::StopContainer { container: client.clone(), timeout_seconds: 30 };
    let _: cri::Empty = kubelet.ask("StopContainer", stop).unwrap();
    let ended = kubelet.state(&client);
    assert_eq!((ended.state, ended.exit_code), (EXITED, 5), "{ended:?}");
    let _: cri::Empty = kubelet.ask("RemoveContainer", id(&client)).unwrap();
    let _: cri::Empty = kubelet.ask("StopPodSandbox", id(&pod.0)).unwrap();
    assert_eq!((kubelet.state(&server).state, kubelet.state(&server).exit_code), (EXITED, 137));
    let _: cri::Empty = kubelet.ask("RemovePodSandbox", id(&pod.0)).unwrap();
    kubelet.host.until("the shim ends", || kubelet.shims() == 0);
    kubelet.host.kill_daemon();
}

/// A running container's limit is changed, and its memory is told.
fn limits_and_figures(kubelet: &Kubelet, container: &str) {
    let stats: cri::ContainerStats = kubelet.ask("ContainerStats", id(container)).unwrap();
    let memory = stats.stats.and_then(|stats| stats.memory?.working_set).unwrap();
    assert!((1..64 << 20).contains(&memory.value), "{memory:?}");
    let linux = Some(cri::Resources { memory_limit: 8 << 20 });
    let update = cri::UpdateResources { container: container.into(), linux };
    let _: cri::Empty = kubelet.ask("UpdateContainerResources", update).unwrap();
    let hungry = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    assert_eq!(kubelet.exec(container, hungry).0, 137);
}
