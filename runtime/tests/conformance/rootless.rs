//! Containers of users who are not root: with what the kernel lets them have, and with what newuidmap and newgidmap add.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Bench, V2_ALONE, everywhere, only_ours};

const USER: u32 = 4711;
const FIRST_SUBORDINATE: u32 = 300_000;

/// From now on the bench is a user's with 65536 subordinate ids. The files that say so are in a mount namespace of the bench's.
fn user_with_subordinate_ids(t: &mut Bench) {
    t.belong_to(USER);
    let ids = t.path("subordinate");
    std::fs::write(&ids, format!("somebody:{FIRST_SUBORDINATE}:65536\n")).unwrap();
    let script = format!(
        "mount -t tmpfs tmpfs /etc && echo somebody:x:{USER}:{USER}::/:/bin/sh > /etc/passwd && \
         cp {ids} /etc/subuid && cp {ids} /etc/subgid && \
         exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$@\"",
        ids = ids.display()
    );
    t.inside(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    map(t, FIRST_SUBORDINATE);
}

/// The user is root in the container, and the ids from 1 on are those of the host's from `first` on.
fn map(t: &mut Bench, first: u32) {
    let mappings =
        json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": first, "size": 65536}]);
    t.set("/linux/uidMappings", mappings.clone());
    t.set("/linux/gidMappings", mappings);
}

fn user_namespace(t: &mut Bench) {
    t.push("/linux/namespaces", json!({"type": "user"}));
}

#[test]
fn subordinate_ids_come_by_newuidmap() {
    everywhere(|t| {
        user_with_subordinate_ids(t);
        user_namespace(t);
        let seen =
            t.shell("id -u; touch /tmp/x && chown 5:6 /tmp/x && stat -c %u:%g /tmp/x; wc -l < /proc/self/uid_map");
        assert_eq!(seen, "0\n5:6\n2\n");
        let stat = std::fs::metadata(t.rootfs("/tmp/x")).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (FIRST_SUBORDINATE + 4, FIRST_SUBORDINATE + 5));
        t.sleeping("u");
        assert_eq!(t.ok(&["exec", "--user", "7:8", "u", "sh", "-c", "id -u; id -g"]), "7\n8\n");
        assert_eq!(t.ok(&["list", "--quiet"]), "u\n");
        let pid = t.pid("u");
        t.ok(&["kill", "u", "KILL"]);
        t.gone(pid);
        t.ok(&["delete", "u"]);
        // Ids that are somebody else's.
        map(t, 2 * FIRST_SUBORDINATE);
        t.args(&["true"]);
        let (code, stderr) = t.fails(&["run", "foreign"]);
        assert!(code == 1 && stderr.contains("[1-65537) -> [600000-665536) not allowed"), "{stderr}");
        assert_eq!(t.ok(&["list", "--quiet"]), "");
    });
}

#[test]
fn without_newuidmap_the_error_names_it() {
    only_ours(|t| {
        user_with_subordinate_ids(t);
        user_namespace(t);
        t.args(&["true"]);
        let id = USER.to_string();
        t.inside(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "env", "PATH=/nonexistent"]);
        let (code, stderr) = t.fails(&["run", "c"]);
        assert!(code == 1 && stderr.contains("linux.uidMappings: newuidmap: "), "{stderr}");
        assert_eq!(t.ok(&["list", "--quiet"]), "");
    });
}

#[test]
fn what_a_user_can_not_have_is_an_error() {
    everywhere(|t| {
        user_with_subordinate_ids(t);
        user_namespace(t);
        t.args(&["true"]);
        // Nobody asks for limits: no cgroup is no error, unless the user claims to be root.
        t.ok(&["run", "plain"]);
        t.ok(&["--rootless", "true", "run", "plain"]);
        let (code, stderr) = t.fails(&["--rootless", "false", "run", "plain"]);
        assert!(code == 1 && stderr.contains("permission denied"), "{stderr}");
        t.set("/linux/cgroupsPath", json!("/somewhere/else"));
        let (code, stderr) = t.fails(&["run", "place"]);
        assert!(code == 1 && stderr.contains("permission denied"), "{stderr}");
        t.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        t.set("/linux/resources", json!({"pids": {"limit": 5}}));
        let (code, stderr) = t.fails(&["run", "limit"]);
        assert!(code == 1 && stderr.contains("pids"), "{stderr}");
        t.config["linux"].as_object_mut().unwrap().remove("resources");
        // Only the user is mapped: there is no group 5 for terminals.
        let single = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
        t.set("/linux/uidMappings", single.clone()).set("/linux/gidMappings", single);
        let (code, stderr) = t.fails(&["run", "gid"]);
        assert!(code == 1 && stderr.contains("gid"), "{stderr}");
        assert_eq!(t.ok(&["list", "--quiet"]), "");
    });
}

/// From now on the machine has cgroup v2 alone, and in it a cgroup that was given to the user, in whom the runtime is.
fn user_with_a_cgroup(t: &mut Bench) {
    t.belong_to(USER);
    let script = format!(
        "{V2_ALONE} && mkdir -p {group} && \
         (cd {group} && chown {USER} . cgroup.procs cgroup.threads cgroup.subtree_control && echo $$ > cgroup.procs) && \
         exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$@\"",
        group = format_args!("/sys/fs/cgroup/{}", t.cgroup()),
    );
    t.inside(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    user_namespace(t);
    let single = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    t.set("/linux/uidMappings", single.clone()).set("/linux/gidMappings", single);
    // Nobody else is mapped, so there is no group 5 for terminals.
    t.config["mounts"][2]["options"].as_array_mut().unwrap().pop();
}

/// What a shell sees in the cgroup that the user was given.
fn in_the_users_cgroup(t: &Bench, script: &str) -> String {
    let script = format!("{V2_ALONE} && cd /sys/fs/cgroup/{} && {script}", t.cgroup());
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_cgroup_that_was_given_to_a_user_is_divided() {
    only_ours(|t| {
        user_with_a_cgroup(t);
        t.set("/linux/cgroupsPath", json!(format!("/{}/c", t.cgroup())));
        t.set("/linux/resources", json!({"unified": {"cgroup.max.descendants": "7"}}));
        t.sleeping("c");
        let pid = t.pid("c").to_string();
        let seen = in_the_users_cgroup(t, "cat c/cgroup.max.descendants c/cgroup.procs; stat -c %u c");
        assert_eq!(seen, format!("7\n{pid}\n{USER}\n"));
        let own = t.ok(&["exec", "c", "cat", "/proc/self/cgroup"]);
        assert!(own.lines().any(|line| line == format!("0::/{}/c", t.cgroup())), "{own}");
        std::fs::write(t.path("limits.json"), r#"{"unified": {"cgroup.max.descendants": "3"}}"#).unwrap();
        t.ok(&["update", "--resources", "limits.json", "c"]);
        assert_eq!(in_the_users_cgroup(t, "cat c/cgroup.max.descendants"), "3\n");
        t.ok(&["pause", "c"]);
        assert_eq!(t.state("c")["status"], "paused");
        assert_eq!(in_the_users_cgroup(t, "cat c/cgroup.freeze"), "1\n");
        t.ok(&["resume", "c"]);
        t.ok(&["exec", "--detach", "c", "sleep", "1000"]);
        assert_eq!(t.ok(&["ps", "--format", "json", "c"]).split(',').count(), 2);
        t.ok(&["delete", "--force", "c"]);
        assert_eq!(in_the_users_cgroup(t, "ls -d c || echo gone"), "gone\n");
        // What the user's cgroup has no controller for is an error, and leaves nothing.
        t.set("/linux/resources", json!({"unified": {"nosuch.max": "1"}}));
        let (code, stderr) = t.fails(&["run", "c"]);
        assert!(code == 1 && stderr.contains("nosuch"), "{stderr}");
        assert_eq!(in_the_users_cgroup(t, "ls -d c || echo gone"), "gone\n");
        in_the_users_cgroup(t, "cd .. && rmdir $OLDPWD");
    });
}

#[test]
fn a_rootless_spec_runs_as_it_is() {
    everywhere(|t| {
        t.belong_to(USER);
        std::fs::create_dir(t.path("fresh")).unwrap();
        std::os::unix::fs::chown(t.path("fresh"), Some(USER), Some(USER)).unwrap();
        let fresh = t.path("fresh").to_str().unwrap().to_owned();
        t.ok(&["spec", "--rootless", "--bundle", &fresh]);
        let text = std::fs::read(t.path("fresh/config.json")).unwrap();
        t.config = serde_json::from_slice::<Value>(&text).unwrap();
        t.set("/process/terminal", json!(false));
        assert_eq!(t.shell("id -u; cat /proc/self/setgroups; test -d /sys/class && echo sys"), "0\ndeny\nsys\n");
    });
}

#[test]
fn exec_works_for_root_of_a_user_namespace_without_another_one() {
    // As under podman, whose own process is in the user namespace: the host's pid namespace is not its own to come back to.
    everywhere(|t| {
        t.belong_to(USER);
        let id = USER.to_string();
        let mut holder = Command::new("setpriv");
        holder.args(["--reuid", &id, "--regid", &id, "--clear-groups", "unshare", "--user", "--map-root-user"]);
        let holder = holder.args(["sh", "-c", "echo; exec sleep 1000"]).stdout(Stdio::piped()).spawn();
        let mut holder = Ended(holder.unwrap());
        holder.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        t.inside(&["nsenter", "--user", "--target", &holder.0.id().to_string()]);
        t.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/pts");
        t.sleeping("c");
        assert_eq!(t.ok(&["exec", "c", "sh", "-c", "id -u; cat /proc/1/comm"]), "0\nsleep\n");
        // The runtime gets into its namespace only as long as it lives.
        t.ok(&["delete", "--force", "c"]);
    });
}

/// A process that ends with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
