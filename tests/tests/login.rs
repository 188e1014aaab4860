//! Registries that want to know who asks, and registries whose certificate nobody knows.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::fake_registry::FakeRegistry;
use dhow_tests::image::{Format, busybox};
use dhow_tests::registry::Demands;
use dhow_tests::{BUSYBOX, Instance, Registry, isolated, tool};

/// An instance with a busybox from a plain registry.
fn with_image(sandbox: &dhow_tests::Sandbox) -> (Registry, Instance, String) {
    let plain = Registry::with_images(sandbox);
    let dhow = Instance::new(sandbox);
    let image = plain.image(BUSYBOX);
    dhow.ok(&format!("pull -q {image}"));
    (plain, dhow, image)
}

#[test]
fn a_password_is_asked_for_and_kept() {
    isolated(|sandbox| {
        let (_plain, dhow, image) = with_image(sandbox);
        let locked = Registry::demanding(sandbox, Demands { password: true, tls: false });
        let target = locked.image("private/busybox:1");
        dhow.ok(&format!("tag {image} {target}"));
        let refused = dhow.run(&format!("push -q {target}")).code(1);
        assert!(refused.stderr.starts_with("dhow: ") && refused.stderr.lines().count() == 1, "{}", refused.stderr);

        let login =
            |password: &str| dhow.dhow(["login", "-u", "anna", "--password-stdin", &locked.host]).stdin(password).run();
        login("wrong\n").one_line(1, &[&locked.host, "unauthorized"]);
        assert!(!dhow.home().join(".docker/config.json").exists(), "a wrong password is not kept");
        assert!(login("secret\n").ok().stdout.contains("Login Succeeded"));
        let kept = dhow.home().join(".docker/config.json");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        dhow.ok(&format!("push -q {target}"));

        // What docker's login wrote others understand, and the other way round.
        let inspected = tool("skopeo", ["inspect", "--tls-verify=false", "--authfile"])
            .arg(&kept)
            .arg(format!("docker://{target}"));
        inspected.run().ok();
        let other = Instance::named(sandbox, "other");
        other.run(&format!("pull -q {target}")).one_line(1, &[&locked.host, "unauthorized"]);
        std::fs::create_dir_all(other.home().join(".docker")).unwrap();
        std::fs::copy(&kept, other.home().join(".docker/config.json")).unwrap();
        other.ok(&format!("pull -q {target}"));

        dhow.ok(&format!("logout {}", locked.host));
        dhow.run(&format!("push -q {target}")).code(1);
    });
}

#[test]
fn a_certificate_must_be_trusted() {
    isolated(|sandbox| {
        let (_plain, dhow, image) = with_image(sandbox);
        let registry = Registry::demanding(sandbox, Demands { password: true, tls: true });
        let port = registry.host.rsplit(':').next().unwrap();
        let host = format!("localhost:{port}");
        let login = || dhow.dhow(["login", "-u", "anna", "--password-stdin", &host]).stdin("secret\n").run();
        login().one_line(1, &[&host, "certificate"]);
        dhow.run(&format!("pull -q {host}/thing")).one_line(1, &["certificate"]);

        // A tmpfs over it: the machine's own directory is not ours to write.
        let made = std::fs::create_dir("/etc/docker").is_ok();
        let directory = format!("/etc/docker/certs.d/{host}");
        tool("mount", ["-t", "tmpfs", "tmpfs", "/etc/docker"]).run().ok();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(registry.authority(), format!("{directory}/ca.crt")).unwrap();
        assert!(login().ok().stdout.contains("Login Succeeded"));
        let target = format!("{host}/private/busybox:1");
        dhow.ok(&format!("tag {image} {target}"));
        dhow.ok(&format!("push -q {target}"));
        dhow.ok(&format!("rmi {target}"));
        dhow.ok(&format!("pull -q {target}"));
        tool("umount", ["/etc/docker"]).run().ok();
        if made {
            std::fs::remove_dir("/etc/docker").ok();
        }
    });
}

#[test]
fn credential_helpers_are_asked() {
    isolated(|sandbox| {
        let (_plain, dhow, image) = with_image(sandbox);
        let locked = Registry::demanding(sandbox, Demands { password: true, tls: false });
        let programs = sandbox.dir("programs");
        let helper = programs.join("docker-credential-test");
        std::fs::write(&helper, "#!/bin/sh\nread host\necho \"$1 $host\" >>\"$HOME/asked\"\necho '{\"ServerURL\":\"x\",\"Username\":\"anna\",\"Secret\":\"secret\"}'\n").unwrap();
        tool("chmod", ["755"]).arg(&helper).run().ok();
        std::fs::create_dir_all(dhow.home().join(".docker")).unwrap();
        let config = format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, locked.host);
        std::fs::write(dhow.home().join(".docker/config.json"), config).unwrap();
        let target = locked.image("private/busybox:1");
        dhow.ok(&format!("tag {image} {target}"));
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        dhow.dhow(["push", "-q", &target]).env("PATH", path).run().ok();
        let asked = dhow_tests::command::text(dhow.home().join("asked"));
        assert!(asked.contains(&format!("get {}", locked.host)), "{asked}");
    });
}

#[test]
fn plain_http_is_only_for_loopback() {
    isolated(|sandbox| {
        tool("ip", ["addr", "add", "192.0.2.1/32", "dev", "lo"]).run().ok();
        let registry = FakeRegistry::on("192.0.2.1:0");
        registry.put("thing", "1", &busybox(Format::Oci).finish());
        let dhow = Instance::new(sandbox);
        dhow.run(&format!("pull -q {}", registry.image("thing:1"))).one_line(1, &[&registry.host]);
        assert_eq!(registry.requests(), Vec::<String>::new(), "not a word in the clear");
    });
}
