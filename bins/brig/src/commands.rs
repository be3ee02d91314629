//! The commands, one file each. A command is its arguments and an `execute`; the groups (`brig container …`) name the
//! same commands again.

mod attach;
mod commit;
mod completion;
mod cp;
mod create;
mod diff;
mod events;
mod exec;
mod export;
mod generate_man;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod load;
mod login;
mod logout;
mod logs;
mod network;
mod not_built;
mod pause;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod registry;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod session;
mod start;
mod stats;
mod stop;
mod system;
mod tag;
mod top;
mod unpause;
mod update;
mod version;
mod volume;
mod wait;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::Outcome;

/// Declares an enum of commands, each variant naming the module with its `Arguments` and `execute`.
macro_rules! commands {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident => $($module:ident)::+,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Subcommand)]
        pub(crate) enum $name {
            $($(#[$variant_meta])* $variant(Box<$($module)::+::Arguments>),)*
        }

        impl $name {
            /// Runs the command.
            pub(crate) async fn execute(self, context: &Context) -> Outcome {
                match self {
                    $(Self::$variant(arguments) => Box::pin($($module)::+::execute(context, *arguments)).await,)*
                }
            }
        }
    };
}
pub(crate) use commands;

commands! {
    /// Every command.
    Command {
        Run => run,
        Exec => exec,
        Ps => ps,
        Pull => pull,
        Push => push,
        Images => images,
        Login => login,
        Logout => logout,
        Version => version,
        Info => info,
        Attach => attach,
        Commit => commit,
        Cp => cp,
        Create => create,
        Diff => diff,
        Events => events,
        Export => export,
        History => history,
        Import => import,
        Inspect => inspect,
        Kill => kill,
        Load => load,
        Logs => logs,
        Pause => pause,
        Port => port,
        Rename => rename,
        Restart => restart,
        Rm => rm,
        Rmi => rmi,
        Save => save,
        Start => start,
        Stats => stats,
        Stop => stop,
        Tag => tag,
        Top => top,
        Unpause => unpause,
        Update => update,
        Wait => wait,
        /// Manage containers
        Container => container_group,
        /// Manage images
        Image => image_group,
        Network => network,
        Volume => volume,
        System => system,
        Registry => registry,
        Completion => completion,
        #[command(hide = true)]
        GenerateMan => generate_man,
        /// Not built yet
        #[command(hide = true)]
        Build => not_built::build,
        /// Not built yet
        #[command(hide = true)]
        Search => not_built::search,
        /// Not built yet
        #[command(hide = true)]
        Compose => not_built::compose,
        /// Not built yet
        #[command(hide = true)]
        Swarm => not_built::swarm,
    }
}

/// `brig container …`.
mod container_group {
    use super::{Context, Outcome};
    use super::{
        attach, commit, cp, create, diff, exec, export, inspect, kill, logs, pause, port, prune,
        ps, rename, restart, rm, run, start, stats, stop, top, unpause, update, wait,
    };

    /// Manage containers
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        #[command(subcommand)]
        command: Command,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        arguments.command.execute(context).await
    }

    use clap::Subcommand;
    commands! {
        /// The commands of containers.
        Command {
            Attach => attach,
            Commit => commit,
            Cp => cp,
            Create => create,
            Diff => diff,
            Exec => exec,
            Export => export,
            Inspect => inspect::container,
            Kill => kill,
            Logs => logs,
            #[command(visible_aliases = ["list", "ps"])]
            Ls => ps,
            Pause => pause,
            Port => port,
            Prune => prune::containers,
            Rename => rename,
            Restart => restart,
            #[command(visible_alias = "remove")]
            Rm => rm,
            Run => run,
            Start => start,
            Stats => stats,
            Stop => stop,
            Top => top,
            Unpause => unpause,
            Update => update,
            Wait => wait,
        }
    }
}

/// `brig image …`.
mod image_group {
    use super::{Context, Outcome};
    use super::{history, images, import, inspect, load, prune, pull, push, rmi, save, tag};

    /// Manage images
    #[derive(Debug, clap::Args)]
    pub(crate) struct Arguments {
        #[command(subcommand)]
        command: Command,
    }

    pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
        arguments.command.execute(context).await
    }

    use clap::Subcommand;
    commands! {
        /// The commands of images.
        Command {
            History => history,
            Import => import,
            Inspect => inspect::image,
            Load => load,
            #[command(visible_alias = "list")]
            Ls => images,
            Prune => prune::images,
            Pull => pull,
            Push => push,
            #[command(visible_alias = "remove")]
            Rm => rmi,
            Save => save,
            Tag => tag,
        }
    }
}
