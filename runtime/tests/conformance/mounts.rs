//! Mounts, devices, and the root file system.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::json;

use crate::support::{everywhere, only_ours};

#[test]
fn devices_and_links_are_there() {
    everywhere(|t| {
        t.set(
            "/linux/devices",
            json!([{"path": "/dev/more/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4}]),
        );
        let seen = t.shell(
            "cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty more/fuse; for l in fd stdin ptmx; do readlink $l; done",
        );
        let expected = "null character special file 1:3 666 0:0\nzero character special file 1:5 666 0:0\n\
             full character special file 1:7 666 0:0\nrandom character special file 1:8 666 0:0\n\
             urandom character special file 1:9 666 0:0\ntty character special file 5:0 666 0:0\n\
             more/fuse character special file a:e5 640 3:4\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n";
        assert_eq!(seen, expected);
    });
}

#[test]
fn devices_of_a_user_namespace_are_what_config_json_says() {
    // runc binds the host's node of the same path, with its owner and mode, or fails when there is none.
    only_ours(|t| {
        t.push("/linux/namespaces", json!({"type": "user"}));
        t.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 100}]));
        t.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 100}]));
        t.set(
            "/linux/devices",
            json!([
                {"path": "/dev/none/here", "type": "b", "major": 1, "minor": 5, "fileMode": 0o157, "uid": 10, "gid": 11},
                {"path": "/dev/again", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 1000, "gid": 1},
                {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o604, "uid": 2},
                {"path": "/dev/fifo", "type": "p", "fileMode": 0o602, "uid": 3},
                // Of a privileged container, which gets whatever the host has.
                {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2, "fileMode": 0o666},
            ]),
        );
        t.set("/linux/resources", json!({"devices": [{"allow": true, "access": "rwm"}]}));
        let seen = t.shell(
            "cd /dev; stat -c '%n %F %t:%T %a %u:%g' none/here again full fifo null; head -c 2 zero | od -A n -t x1; readlink ptmx",
        );
        let expected = "none/here block special file 1:5 157 10:11\nagain character special file 1:5 600 65534:1\n\
             full character special file 1:7 604 2:0\nfifo fifo 0:0 602 3:0\n\
             null character special file 1:3 666 65534:65534\n 00 00\npts/ptmx\n";
        assert_eq!(seen, expected);
    });
}

#[test]
fn mounts_have_their_options_and_places() {
    everywhere(|t| {
        let volume = t.path("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("file"), "content").unwrap();
        symlink("/inside/deep", t.rootfs("/dangling")).unwrap();
        let bind = |to: &str, options: serde_json::Value| json!({"destination": to, "type": "bind", "source": volume, "options": options});
        t.push("/mounts", bind("/a", json!(["bind", "ro", "nosuid", "nodev", "noexec", "noatime"])));
        t.push("/mounts", bind("/dangling/v", json!(["rbind", "rw"])));
        t.push(
            "/mounts",
            json!({"destination": "/one/file", "source": volume.join("file"), "options": ["bind", "ro"]}),
        );
        t.push(
            "/mounts",
            json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["size=64k", "mode=1750"]}),
        );
        let seen = t.shell(
            "grep ' /a ' /proc/self/mountinfo | grep -o 'ro,[a-z,]*' | head -n1; \
             cat /a/file /inside/deep/v/file /one/file; echo; touch /inside/deep/v/new; stat -c %a /t; touch /a/x 2>&1; \
             touch /one/file 2>&1; true",
        );
        let expected = "ro,nosuid,nodev,noexec,noatime\ncontentcontentcontent\n1750\n\
             touch: /a/x: Read-only file system\ntouch: /one/file: Read-only file system\n";
        assert_eq!(seen, expected);
        assert!(volume.join("new").exists() && t.rootfs("/inside/deep").is_dir());
    });
}

#[test]
fn a_tmpfs_takes_mode_and_content_of_what_it_covers() {
    only_ours(|t| {
        std::fs::create_dir(t.rootfs("/full")).unwrap();
        std::fs::write(t.rootfs("/full/file"), "text").unwrap();
        std::fs::set_permissions(t.rootfs("/full"), PermissionsExt::from_mode(0o1711)).unwrap();
        t.push(
            "/mounts",
            json!({"destination": "/full", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "ro"]}),
        );
        assert_eq!(
            t.shell("stat -c %a /full; cat /full/file; touch /full/x 2>/dev/null || echo ' ro'"),
            "1711\ntext ro\n"
        );
        t.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] = json!([]);
        assert_eq!(t.shell("stat -c %a /full; ls /full"), "1711\n");
    });
}

#[test]
fn a_tmpfs_over_nothing_is_everybodys_also_when_it_copies() {
    everywhere(|t| {
        t.push("/mounts", json!({"destination": "/new", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]}));
        assert_eq!(t.shell("stat -c %a /new"), "1777\n");
    });
}

#[test]
fn a_tmpfs_that_copies_has_the_mode_that_it_is_given() {
    // Debian's runc gives it that of the directory.
    only_ours(|t| {
        std::fs::create_dir(t.rootfs("/full")).unwrap();
        std::fs::write(t.rootfs("/full/file"), "text").unwrap();
        let options = ["tmpcopyup", "mode=1711"];
        t.push("/mounts", json!({"destination": "/full", "type": "tmpfs", "source": "t", "options": options}));
        assert_eq!(t.shell("stat -c %a /full; cat /full/file"), "1711\ntext");
    });
}

#[test]
fn recursive_attributes_reach_what_lies_below() {
    everywhere(|t| {
        let outer = t.path("outer");
        std::fs::create_dir_all(outer.join("inner")).unwrap();
        // A mount below the volume, in a mount namespace that only this runtime call sees.
        t.push("/mounts", json!({"destination": "/v", "type": "bind", "source": outer, "options": ["rbind", "rro"]}));
        t.args(&["sh", "-c", "touch /v/x 2>/dev/null || echo outer; touch /v/inner/x 2>/dev/null || echo inner"]);
        let mut command = t.command(&["run", "r"]);
        let mut unshared = std::process::Command::new("unshare");
        unshared.args(["-m", "sh", "-c", "mount -t tmpfs t \"$1\" && shift && exec \"$@\"", "sh"]);
        unshared.arg(outer.join("inner")).arg(command.get_program()).args(command.get_args());
        let output = unshared.current_dir(command.get_current_dir().unwrap()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "outer\ninner\n", "{output:?}");
        command.env_clear();
    });
}

#[test]
fn paths_are_masked_and_read_only() {
    everywhere(|t| {
        std::fs::create_dir(t.rootfs("/secret")).unwrap();
        std::fs::write(t.rootfs("/secret/file"), "x").unwrap();
        std::fs::write(t.rootfs("/hidden"), "x").unwrap();
        t.set("/linux/maskedPaths", json!(["/secret", "/hidden", "/proc/kcore", "/not/there"]));
        t.set("/linux/readonlyPaths", json!(["/proc/sys", "/tmp", "/not/there"]));
        let seen = t.shell(
            "ls /secret; cat /hidden; touch /secret/x 2>/dev/null || echo 1; touch /tmp/x 2>/dev/null || echo 2; \
             echo y 2>/dev/null > /proc/sys/kernel/hostname || echo 3; touch /etc/x && echo 4",
        );
        assert_eq!(seen, "1\n2\n3\n4\n");
        t.set("/root/readonly", json!(true));
        assert_eq!(t.shell("touch /etc/y 2>/dev/null || echo ro"), "ro\n");
    });
}

#[test]
fn propagation_of_the_root_and_of_volumes() {
    everywhere(|t| {
        for (given, expected) in [("private", ""), ("shared", "shared:"), ("unbindable", "unbindable")] {
            if given == "unbindable" && !t.is_ours() {
                // runc binds the root over itself only after that, which the kernel then refuses.
                continue;
            }
            t.set("/linux/rootfsPropagation", json!(given));
            let line = t.shell("grep -E '^[0-9]+ [0-9]+ [^ ]+ [^ ]+ / ' /proc/self/mountinfo");
            // runc leaves the root private when the mount that it lies on is.
            assert!(line.contains(expected) || !t.is_ours(), "{given}: {line}");
            assert!(!line.contains("shared:") || given == "shared", "{given}: {line}");
        }
    });
}

#[test]
fn id_mapped_mounts_show_other_owners() {
    only_ours(|t| {
        let volume = t.path("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("file"), "").unwrap();
        std::os::unix::fs::chown(volume.join("file"), Some(5), Some(6)).unwrap();
        t.push(
            "/mounts",
            json!({"destination": "/v", "type": "bind", "source": volume, "options": ["bind", "idmap"],
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 100}],
                "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 100}]}),
        );
        assert_eq!(t.shell("stat -c %u:%g /v/file"), "1005:2006\n");
    });
}

#[test]
fn a_tmpfs_becomes_read_only_when_what_lies_in_it_is_there() {
    everywhere(|t| {
        t.config["mounts"][1]["options"].as_array_mut().unwrap().push(json!("ro"));
        let seen = t.shell(
            "touch /dev/x 2>/dev/null || echo ro; touch /dev/shm/x && echo rw; echo x >/dev/null && ls /dev/pts",
        );
        assert_eq!(seen, "ro\nrw\nptmx\n");
    });
}

#[test]
fn every_recursive_attribute_reaches_what_lies_below() {
    everywhere(|t| {
        let outer = t.path("outer");
        std::fs::create_dir_all(outer.join("inner")).unwrap();
        let script = format!("mount -t tmpfs t {} && exec \"$@\"", outer.join("inner").display());
        t.inside(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
        t.push("/mounts", json!({"destination": "/v", "type": "bind", "source": outer, "options": []}));
        for (options, expected) in [
            (&["rnosuid", "rnodev", "rnoexec"][..], "rw,nosuid,nodev,noexec,relatime"),
            (&["rro", "rnoatime"], "ro,noatime"),
            (&["rro", "rrw", "rnosuid", "rsuid"], "rw,relatime"),
            (&["rnodiratime", "rstrictatime"], "rw,nodiratime"),
            (&["rnoatime", "rrelatime"], "rw,relatime"),
            (&["rnosymfollow"], "rw,relatime,nosymfollow"),
        ] {
            if !t.is_ours() && ["rsuid", "rrelatime", "rnosymfollow"].contains(options.last().unwrap()) {
                // Debian's runc takes none back, sets the second one wrongly, and does not know the third.
                continue;
            }
            let all: Vec<_> = ["rbind"].iter().chain(options).collect();
            t.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] = json!(all);
            let seen = t.shell("grep ' /v/inner ' /proc/self/mountinfo | cut -d' ' -f6");
            assert_eq!(seen.trim(), expected, "{options:?}");
        }
    });
}

#[test]
fn an_id_mapped_mount_takes_the_containers_mappings_or_its_own() {
    only_ours(|t| {
        let outer = t.path("outer");
        std::fs::create_dir_all(outer.join("inner")).unwrap();
        std::os::unix::fs::chown(&outer, Some(7), Some(8)).unwrap();
        let script = format!("mount -t tmpfs -o uid=7,gid=8 t {} && exec \"$@\"", outer.join("inner").display());
        t.inside(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
        t.push("/linux/namespaces", json!({"type": "user"}));
        t.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
        t.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
        for name in ["same", "all", "none", "own"] {
            std::fs::create_dir(t.rootfs(name)).unwrap();
        }
        let own = json!([{"containerID": 7, "hostID": 100_017, "size": 1}]);
        let groups = json!([{"containerID": 8, "hostID": 200_018, "size": 1}]);
        let mount = |to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": outer, "options": options});
        t.push("/mounts", mount("/same", &["bind", "idmap"]));
        t.push("/mounts", mount("/all", &["rbind", "ridmap"]));
        t.push("/mounts", mount("/none", &["rbind"]));
        let mut other = mount("/own", &["bind", "idmap"]);
        other["uidMappings"] = own;
        other["gidMappings"] = groups;
        t.push("/mounts", other);
        let seen = t.shell("stat -c '%n %u:%g' /same /all /all/inner /none /own");
        assert_eq!(seen, "/same 7:8\n/all 7:8\n/all/inner 7:8\n/none 65534:65534\n/own 17:18\n");
        t.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["uidMappings"] = json!([]);
        let (_, text) = t.fails(&["run", "x"]);
        assert!(text.contains("mounts[8].uidMappings"), "{text}");
    });
}

#[test]
fn an_id_mapped_mount_takes_the_mappings_of_a_joined_user_namespace() {
    only_ours(|t| {
        let volume = t.path("volume");
        std::fs::create_dir(&volume).unwrap();
        std::os::unix::fs::chown(&volume, Some(7), Some(8)).unwrap();
        for name in ["inside", "v", "w", "own"] {
            std::fs::create_dir(t.rootfs(name)).unwrap();
        }
        t.push("/linux/namespaces", json!({"type": "user"}));
        t.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
        t.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
        t.sleeping("first");
        let path = format!("/proc/{}/ns/user", t.pid("first"));
        *t.config["linux"]["namespaces"].as_array_mut().unwrap().last_mut().unwrap() =
            json!({"type": "user", "path": path});
        let mount = |to: &str, source: &Path| json!({"destination": to, "type": "bind", "source": source, "options": ["bind", "idmap"]});
        t.push("/mounts", mount("/v", &volume));
        t.push("/mounts", mount("/w", &t.rootfs("/inside")));
        let mut own = mount("/own", &volume);
        own["uidMappings"] = json!([{"containerID": 7, "hostID": 100_017, "size": 1}]);
        own["gidMappings"] = json!([{"containerID": 8, "hostID": 200_018, "size": 1}]);
        t.push("/mounts", own);
        let script = "stat -c '%n %u:%g' /v /w /own";
        let expected = "/v 7:8\n/w 0:0\n/own 17:18\n";
        // With the mappings repeated, as engines do, and without.
        assert_eq!(t.shell(script), expected);
        t.config["linux"].as_object_mut().unwrap().retain(|field, _| !field.ends_with("Mappings"));
        assert_eq!(t.shell(script), expected);
    });
}

#[test]
fn an_id_mapped_mount_takes_mappings_from_its_option() {
    only_ours(|t| {
        let volume = t.path("volume");
        std::fs::create_dir(&volume).unwrap();
        std::os::unix::fs::chown(&volume, Some(7), Some(8)).unwrap();
        let option = "idmap=uids=0-1000-5#7-2000-1;gids=8-3000-1";
        t.push("/mounts", json!({"destination": "/v", "type": "bind", "source": volume, "options": ["bind", option]}));
        assert_eq!(t.shell("stat -c %u:%g /v"), "2000:3000\n");
        t.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] = json!(["bind", "idmap=uids=x"]);
        let (code, stderr) = t.fails(&["run", "c"]);
        assert!(code == 1 && stderr.contains("mounts[5].options: idmap: "), "{stderr}");
    });
}

#[test]
fn a_tmpfs_where_nothing_was_is_open_to_all() {
    // Debian's runc takes the mode of the directory that it has made itself.
    only_ours(|t| {
        t.push(
            "/mounts",
            json!({"destination": "/new/place", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}),
        );
        assert_eq!(t.shell("stat -c %a /new/place /new"), "1777\n755\n");
        assert_eq!(t.shell("stat -c %a /new/place"), "755\n", "now there is something");
    });
}

#[test]
fn a_source_in_the_root_is_what_is_mounted_there_by_then() {
    only_ours(|t| {
        let (outer, inner) = (t.path("outer"), t.rootfs("/mnt"));
        std::fs::create_dir_all(outer.join("x")).unwrap();
        std::fs::write(outer.join("x/file"), "seen").unwrap();
        std::os::unix::fs::chown(outer.join("x/file"), Some(100_007), Some(100_008)).unwrap();
        let mount = |from: &Path, to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": from, "options": options});
        t.push("/mounts", mount(&outer, "/mnt", &["bind"]));
        t.push("/mounts", mount(&inner.join("x"), "/final", &["rbind"]));
        assert_eq!(t.shell("cat /final/file"), "seen");
        // So that its ids can be mapped: of a mount, and by somebody who has the right to.
        let ids = json!([{"containerID": 100_000, "hostID": 0, "size": 100}]);
        t.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] = json!(["rbind", "idmap"]);
        t.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["uidMappings"] = ids.clone();
        t.config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["gidMappings"] = ids;
        assert_eq!(t.shell("stat -c %u:%g /final/file"), "7:8\n");
        t.push("/linux/namespaces", json!({"type": "user"}));
        for ids in ["/linux/uidMappings", "/linux/gidMappings"] {
            t.set(ids, json!([{"containerID": 0, "hostID": 0, "size": 1000}]));
        }
        assert_eq!(t.shell("stat -c %u:%g /final/file"), "7:8\n");
    });
}
