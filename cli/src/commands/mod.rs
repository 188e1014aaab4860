//! The commands, one file each, and the groups they also appear in.

mod attach;
mod commit;
mod container_prune;
mod cp;
mod create;
mod diff;
mod events;
mod exec;
mod export;
mod history;
mod image_inspect;
mod image_prune;
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
mod pause;
mod port;
mod ps;
mod pull;
mod push;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod search;
mod start;
mod stats;
mod stop;
mod system_df;
mod system_prune;
mod tag;
mod top;
mod update;
mod version;
mod volume;
mod wait;

use crate::app::{Entry, command, group};

/// dhow's own failures in `run`, `create` and `exec`, so that they are told from the container's codes.
const OWN_FAILURE: u8 = 125;

/// All commands.
pub(crate) fn all() -> Vec<Entry> {
    let mut list = vec![
        command::<run::Command>("run", "Create and start a container").failure(OWN_FAILURE),
        command::<exec::Command>("exec", "Run a further command in a running container").failure(OWN_FAILURE),
        command::<ps::Command>("ps", "List containers"),
        command::<pull::Command>("pull", "Download an image from a registry"),
        command::<push::Command>("push", "Upload an image to a registry"),
        command::<images::Command>("images", "List images"),
        command::<login::Command>("login", "Log in to a registry"),
        command::<logout::Command>("logout", "Log out from a registry"),
        command::<search::Command>("search", "Search a registry for images"),
        command::<version::Command>("version", "Show the version"),
        command::<info::Command>("info", "Show what this instance is and holds"),
        command::<events::Command>("events", "Show what happens, as it happens"),
        group("container", "Manage containers", container_group),
        group("image", "Manage images", image_group),
        group("network", "Manage networks", network_group),
        group("volume", "Manage volumes", volume_group),
        group("system", "Manage the instance", system_group),
        command::<history::Command>("history", "Show how an image was made"),
        command::<import::Command>("import", "Make an image of the tar of a root directory"),
        command::<inspect::Command>("inspect", "Show all about containers, images, volumes and networks"),
        command::<load::Command>("load", "Read images from an archive"),
        command::<rmi::Command>("rmi", "Remove images"),
        command::<save::Command>("save", "Write images into an archive"),
        command::<tag::Command>("tag", "Give an image a further name"),
    ];
    list.extend(container_commands());
    list
}

/// What stands both at the top and in the group `container`.
fn container_commands() -> Vec<Entry> {
    vec![
        command::<attach::Command>("attach", "Attach your terminal to a running container"),
        command::<commit::Command>("commit", "Make an image of a container's changes"),
        command::<cp::Command>("cp", "Copy files between a container and the host"),
        command::<create::Command>("create", "Create a container without starting it").failure(OWN_FAILURE),
        command::<diff::Command>("diff", "Show what a container changed in its files"),
        command::<export::Command>("export", "Write a container's files as a tar"),
        command::<kill::Command>("kill", "Send a signal to running containers"),
        command::<logs::Command>("logs", "Show what a container wrote"),
        command::<pause::Pause>("pause", "Freeze containers"),
        command::<port::Command>("port", "Show a container's published ports"),
        command::<rename::Command>("rename", "Give a container another name"),
        command::<restart::Command>("restart", "Stop containers and start them again"),
        command::<rm::Command>("rm", "Remove containers"),
        command::<start::Command>("start", "Start containers that were created or stopped").failure(1),
        command::<stats::Command>("stats", "Show what containers use"),
        command::<stop::Command>("stop", "Stop containers"),
        command::<top::Command>("top", "List the processes of a container"),
        command::<pause::Unpause>("unpause", "Let frozen containers go on"),
        command::<update::Command>("update", "Change the limits of containers"),
        command::<wait::Command>("wait", "Wait until containers end, and print their exit codes"),
    ]
}

fn container_group() -> Vec<Entry> {
    let mut list = container_commands();
    list.push(command::<run::Command>("run", "Create and start a container").failure(OWN_FAILURE));
    list.push(command::<exec::Command>("exec", "Run a further command in a running container").failure(OWN_FAILURE));
    list.push(command::<ps::Command>("ls", "List containers").aliases(&["ps", "list"]));
    list.push(command::<inspect::Container>("inspect", "Show all about containers"));
    list.push(command::<container_prune::Command>("prune", "Remove all containers that do not run"));
    list
}

fn image_group() -> Vec<Entry> {
    vec![
        command::<images::Command>("ls", "List images").aliases(&["list"]),
        command::<pull::Command>("pull", "Download an image from a registry"),
        command::<push::Command>("push", "Upload an image to a registry"),
        command::<history::Command>("history", "Show how an image was made"),
        command::<import::Command>("import", "Make an image of the tar of a root directory"),
        command::<image_inspect::Command>("inspect", "Show all about images"),
        command::<load::Command>("load", "Read images from an archive"),
        command::<image_prune::Command>("prune", "Remove images that nothing uses"),
        command::<rmi::Command>("rm", "Remove images").aliases(&["remove"]),
        command::<save::Command>("save", "Write images into an archive"),
        command::<tag::Command>("tag", "Give an image a further name"),
    ]
}

fn network_group() -> Vec<Entry> {
    vec![
        command::<network::Create>("create", "Create a network"),
        command::<network::List>("ls", "List networks").aliases(&["list"]),
        command::<network::Inspect>("inspect", "Show all about networks"),
        command::<network::Remove>("rm", "Remove networks").aliases(&["remove"]),
        command::<network::Prune>("prune", "Remove networks that no container uses"),
    ]
}

fn volume_group() -> Vec<Entry> {
    vec![
        command::<volume::Create>("create", "Create a volume"),
        command::<volume::List>("ls", "List volumes").aliases(&["list"]),
        command::<volume::Inspect>("inspect", "Show all about volumes"),
        command::<volume::Remove>("rm", "Remove volumes").aliases(&["remove"]),
        command::<volume::Prune>("prune", "Remove volumes that no container uses"),
    ]
}

fn system_group() -> Vec<Entry> {
    vec![
        command::<system_df::Command>("df", "Show what takes how much space"),
        command::<events::Command>("events", "Show what happens, as it happens"),
        command::<info::Command>("info", "Show what this instance is and holds"),
        command::<system_prune::Command>("prune", "Remove everything that is not in use"),
    ]
}

/// Does something for each of several names, goes on past failures and tells them all.
fn for_each(names: &[String], mut work: impl FnMut(&str) -> crate::error::Result<()>) -> crate::error::Result<u8> {
    let errors: Vec<_> = names.iter().filter_map(|name| work(name).err()).collect();
    crate::error::Error::of_all(errors).map(|()| 0)
}

/// Asks a question on the terminal; without one, or with another answer than yes, it is no.
fn confirm(ctx: &crate::context::Context, question: &str) -> crate::error::Result<bool> {
    ctx.print(|out| {
        write!(out, "WARNING! {question}\nAre you sure you want to continue? [y/N] ")
            .map_err(crate::error::Error::output)
    })?;
    let mut answer = String::new();
    let read = std::io::BufRead::read_line(
        &mut std::io::BufReader::new(std::io::Read::take(std::io::stdin(), 64)),
        &mut answer,
    );
    read.map_err(|source| crate::error::Error::System { action: "read the answer", source })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
