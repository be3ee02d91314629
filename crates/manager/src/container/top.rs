//! The processes of a container, in the columns of ps(1), read from the host's `/proc`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use super::{Shared, blocking_with};
use crate::error::{Error, Result};
use crate::models::ContainerTopResponse;

/// Clock ticks in `/proc/PID/stat` (`USER_HZ`, the same on every Linux architecture that Rust runs on).
const TICKS_PER_SECOND: u64 = 100;
/// Processes shown.
const PROCESSES_MAX: usize = 32_768;

/// `ps -ef`, docker's default.
const FULL: [Column; 8] = [
    Column::User("UID"),
    Column::Pid,
    Column::ParentPid,
    Column::Cpu("C"),
    Column::Start("STIME"),
    Column::Terminal("TTY"),
    Column::Time,
    Column::Command("CMD"),
];
/// `ps aux`.
const USERS: [Column; 8] = [
    Column::User("USER"),
    Column::Pid,
    Column::Cpu("%CPU"),
    Column::Terminal("TTY"),
    Column::State,
    Column::Start("START"),
    Column::Time,
    Column::Command("COMMAND"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    User(&'static str),
    UserId,
    Pid,
    ParentPid,
    Cpu(&'static str),
    Start(&'static str),
    Terminal(&'static str),
    Time,
    State,
    Name,
    Command(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::User(title)
            | Self::Cpu(title)
            | Self::Start(title)
            | Self::Terminal(title)
            | Self::Command(title) => title,
            Self::UserId => "UID",
            Self::Pid => "PID",
            Self::ParentPid => "PPID",
            Self::Time => "TIME",
            Self::State => "STAT",
            Self::Name => "COMMAND",
        }
    }
}

/// The processes of a running container.
pub(super) async fn top(
    shared: &Arc<Shared>,
    container: &str,
    ps_arguments: Option<&str>,
) -> Result<ContainerTopResponse> {
    let columns = parse(ps_arguments.unwrap_or_default())?;
    let handle = shared.table.find(container)?;
    let view = handle.view();
    let shim = handle
        .shim()
        .map_err(|_| Error::conflict(format!("container {} is not running", view.record.id)))?;
    let mut pids = shim.pids().await?;
    pids.sort_unstable();
    pids.truncate(PROCESSES_MAX);
    let titles = columns.iter().map(|column| column.title().to_owned()).collect();
    let processes = blocking_with(shared, move |_| {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let uptime = uptime_seconds();
        // A process that ended since is simply not shown.
        let rows = pids.into_iter().filter_map(|pid| Process::read(pid, &users, uptime));
        Ok(rows
            .map(|process| columns.iter().map(|column| process.show(*column)).collect())
            .collect())
    })
    .await?;
    Ok(ContainerTopResponse { titles: Some(titles), processes: Some(processes) })
}

/// `-ef`, `aux`, or `-o` with a list of columns; anything else is refused by name.
fn parse(arguments: &str) -> Result<Vec<Column>> {
    let words: Vec<&str> = arguments.split_ascii_whitespace().collect();
    let list = match words[..] {
        [] | ["-ef" | "-f" | "-e" | "ef"] => return Ok(FULL.to_vec()),
        ["aux" | "-aux" | "au" | "axu"] => return Ok(USERS.to_vec()),
        ["-o" | "-eo" | "-efo" | "o", list] => list,
        [one] if one.starts_with("-o") => &one[2..],
        _ => {
            return Err(Error::unsupported(format!(
                "ps arguments {arguments:?} are not built; use -ef, aux or -o with columns"
            )));
        }
    };
    let columns: Vec<Column> = list.split(',').map(column).collect::<Result<_>>()?;
    // Docker needs the column too, to know whose processes they are.
    if columns.contains(&Column::Pid) {
        return Ok(columns);
    }
    Err(Error::invalid("Couldn't find PID field in ps output"))
}

fn column(name: &str) -> Result<Column> {
    Ok(match name {
        "user" | "euser" | "uname" => Column::User("USER"),
        "uid" | "euid" => Column::UserId,
        "pid" => Column::Pid,
        "ppid" => Column::ParentPid,
        "c" => Column::Cpu("C"),
        "%cpu" | "pcpu" => Column::Cpu("%CPU"),
        "stime" | "start" | "start_time" => Column::Start("STIME"),
        "tty" | "tt" | "tname" => Column::Terminal("TTY"),
        "time" | "cputime" => Column::Time,
        "stat" | "s" | "state" => Column::State,
        "comm" | "ucmd" => Column::Name,
        "cmd" | "args" => Column::Command("CMD"),
        "command" => Column::Command("COMMAND"),
        _ => return Err(Error::unsupported(format!("ps column {name:?} is not built"))),
    })
}

struct Process {
    pid: u32,
    parent: u32,
    user_id: u32,
    user: String,
    state: char,
    terminal: i64,
    cpu_seconds: u64,
    /// Seconds since the process started.
    age_seconds: u64,
    name: String,
    command: String,
}

impl Process {
    fn read(pid: u32, users: &str, uptime: u64) -> Option<Self> {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let stat = Stat::parse(&file("stat")?)?;
        let status = file("status")?;
        let user_id = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))?
            .split_ascii_whitespace()
            .nth(1)?;
        let user_id: u32 = user_id.parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
        Some(Self {
            pid,
            parent: stat.parent,
            user_id,
            user: user_name(users, user_id).unwrap_or_else(|| user_id.to_string()),
            state: stat.state,
            terminal: stat.terminal,
            cpu_seconds: stat.cpu_ticks / TICKS_PER_SECOND,
            age_seconds: uptime.saturating_sub(stat.start_ticks / TICKS_PER_SECOND),
            command: if command.is_empty() { format!("[{}]", stat.name) } else { command },
            name: stat.name,
        })
    }

    fn show(&self, column: Column) -> String {
        match column {
            Column::User(_) => self.user.clone(),
            Column::UserId => self.user_id.to_string(),
            Column::Pid => self.pid.to_string(),
            Column::ParentPid => self.parent.to_string(),
            Column::Cpu(_) => (self.cpu_seconds * 100)
                .checked_div(self.age_seconds.max(1))
                .unwrap_or(0)
                .min(99)
                .to_string(),
            Column::Start(_) => start_time(self.age_seconds),
            Column::Terminal(_) => terminal_name(self.terminal),
            Column::Time => {
                let seconds = self.cpu_seconds;
                format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            Column::State => self.state.to_string(),
            Column::Name => self.name.clone(),
            Column::Command(_) => self.command.clone(),
        }
    }
}

/// The fields of `/proc/PID/stat` that are shown (proc(5)).
struct Stat {
    name: String,
    state: char,
    parent: u32,
    terminal: i64,
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, parentheses and spaces too; its end is the last parenthesis.
        let (start, end) = (text.find('(')?, text.rfind(')')?);
        let name = text.get(start + 1..end)?.to_owned();
        let fields: Vec<&str> = text.get(end + 1..)?.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            terminal: fields.get(4)?.parse().ok()?,
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            start_ticks: number(22)?,
        })
    }
}

fn user_name(users: &str, id: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// `pts/3`, `tty1`, or `?`.
fn terminal_name(device: i64) -> String {
    let Ok(device) = u64::try_from(device) else { return "?".into() };
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    match major {
        4 if minor < 64 => format!("tty{minor}"),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".into(),
    }
}

fn uptime_seconds() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

/// `HH:MM` within a day, else `MonDD`, as ps(1) writes it, in UTC.
fn start_time(age_seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let started = i64::try_from(now.saturating_sub(age_seconds)).unwrap_or(0);
    let Ok(time) = OffsetDateTime::from_unix_timestamp(started) else { return "?".into() };
    if age_seconds < 24 * 3600 {
        return format!("{:02}:{:02}", time.hour(), time.minute());
    }
    let month = time.month().to_string();
    format!("{}{:02}", month.get(..3).unwrap_or("?"), time.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse_the_fields() {
        let text = "42 (a) b (c)) S 1 42 42 34817 42 0 0 0 0 0 150 50 0 0 20 0 1 0 12345 0 0";
        let stat = Stat::parse(text).expect("fields");
        assert_eq!((stat.name.as_str(), stat.state, stat.parent), ("a) b (c)", 'S', 1));
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (200, 12_345));
        assert_eq!(terminal_name(stat.terminal), "pts/1");
        assert!(Stat::parse("42 (x").is_none());
    }

    #[test]
    fn arguments_that_are_not_built_are_refused() {
        assert_eq!(parse("").expect("default").len(), 8);
        assert_eq!(parse("-o pid,comm").expect("columns"), [Column::Pid, Column::Name]);
        assert!(parse("-o comm").is_err());
        assert!(parse("--forest").expect_err("not built").report().contains("--forest"));
    }

    #[test]
    fn this_process_is_read() {
        let process = Process::read(std::process::id(), "", uptime_seconds()).expect("we exist");
        assert!(!process.show(Column::Command("CMD")).is_empty());
        assert_eq!(process.show(Column::Pid), std::process::id().to_string());
    }
}
