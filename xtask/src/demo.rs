//! `cargo xtask demo`: the main job, as a user would type it, on images made on the spot.
//!
//! The outer half installs and builds; the inner half runs in mount, network and process namespaces of its own, so
//! that ports, bridges and tables are the demonstration's and go with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::dist;
use crate::packages;
use crate::shell::{Error, Result, command, file_error, output, run as execute, target};

/// Prepares everything and shows it; an error when any command did not do what it should.
pub(crate) fn run() -> Result<()> {
    println!("==> what is needed from Debian");
    packages::install(&[packages::DEMO])?;
    println!("==> building");
    let dist = dist::build()?;
    let scratch = Scratch::new()?;
    println!("==> images: busybox, and a Debian by debootstrap");
    make_images(&scratch.0)?;
    let own = std::env::current_exe().map_err(file_error("find", Path::new("/proc/self/exe")))?;
    let namespaces =
        ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"];
    let mut inside = command("unshare", namespaces);
    inside.arg("--").arg(own).args(["demo", "inside"]).arg(&scratch.0).arg(dist);
    execute(&mut inside)
}

/// The inner half: `demo inside SCRATCH DIST`.
pub(crate) fn inside(args: &[&str]) -> Result<()> {
    let [scratch, dist] = args else {
        return Err(Error::Check("demo inside is for the demonstration itself".into()));
    };
    output(&mut command("mount", ["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]))?;
    output(&mut command("busybox", ["ip", "link", "set", "lo", "up"]))?;
    let scratch = Path::new(scratch);
    let mut show = Show::new(scratch, Path::new(dist))?;
    let _registries = start_registries(scratch)?;
    tour(&mut show);
    show.close()
}

/// A directory on a real file system (overlayfs does not stack on itself for ever), gone on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let made = output(&mut command("mktemp", ["-d", "/var/tmp/dhow-demo-XXXXXX"]))?;
        Ok(Self(PathBuf::from(made.trim_end())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(output(command("rm", ["-rf"]).arg(&self.0)));
    }
}

/// An OCI layout with `busybox:latest` and `debian:12` in `scratch/images`.
fn make_images(scratch: &Path) -> Result<()> {
    let debian = debian_tar()?;
    let script = r#"
set -e
cd "$1"
umoci init --layout images
image() { umoci new --image "images:$1"; umoci unpack --keep-dirlinks --image "images:$1" "bundle-$1" >/dev/null 2>&1; }
image busybox
root=bundle-busybox/rootfs
mkdir -p $root/bin $root/etc $root/root $root/tmp $root/var/www; chmod 1777 $root/tmp
cp "$(command -v busybox)" $root/bin/busybox
for applet in $($root/bin/busybox --list); do [ $applet = busybox ] || ln -s busybox $root/bin/$applet; done
echo 'root:x:0:0:root:/root:/bin/sh' >$root/etc/passwd; echo 'root:x:0:' >$root/etc/group
echo 'hello from a container' >$root/var/www/index.html
umoci repack --image images:busybox bundle-busybox
umoci config --image images:busybox --config.cmd sh --config.env PATH=/bin
image debian
tar --numeric-owner --xattrs --xattrs-include='*' -xpf "$2" -C bundle-debian/rootfs
umoci repack --image images:debian bundle-debian
umoci config --image images:debian --config.cmd bash --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
rm -rf bundle-busybox bundle-debian
"#;
    output(command("bash", ["-c", script, "bash"]).arg(scratch).arg(debian)).map(drop)
}

/// The root file system of a small Debian as a tar, made once per checkout (the tests use the same one).
pub(crate) fn debian_tar() -> Result<PathBuf> {
    let fixtures = target().join("fixtures");
    std::fs::create_dir_all(&fixtures).map_err(file_error("create", &fixtures))?;
    let script = r#"
set -e
exec 9>"$1/.debian.lock"; flock 9
[ -s "$1/debian.tar" ] && exit 0
work=$(mktemp -d "$1/debootstrap-XXXXXX"); trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase bookworm "$work/root" >"$work/log" 2>&1 || { tail -5 "$work/log"; exit 1; }
rm -rf "$work"/root/var/cache/apt/archives/*.deb
tar --sort=name --numeric-owner --xattrs --xattrs-include='*' -C "$work/root" -cf "$1/debian.tar.new" .
mv "$1/debian.tar.new" "$1/debian.tar"
"#;
    output(command("bash", ["-c", script, "bash"]).arg(&fixtures))?;
    Ok(fixtures.join("debian.tar"))
}

/// Processes that end with the demonstration.
struct Registries(Vec<Child>);

impl Drop for Registries {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Three registries on loopback: plain (5000), with a password (5001), with a password and TLS by its own CA (5002).
fn start_registries(scratch: &Path) -> Result<Registries> {
    let script = r#"
set -e
cd "$1"
htpasswd -Bbn anna secret >htpasswd
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=demo CA' -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj '/CN=localhost' -keyout tls.key -out tls.csr
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out tls.crt \
  -extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1)
for port in 5000 5001 5002; do
  { echo "version: 0.1"
    echo "log: { level: error }"
    echo "storage: { filesystem: { rootdirectory: $PWD/registry-$port }, delete: { enabled: true } }"
    [ $port = 5000 ] || echo "auth: { htpasswd: { realm: demo, path: $PWD/htpasswd } }"
    echo "http:"
    echo "  addr: 127.0.0.1:$port"
    [ $port != 5002 ] || echo "  tls: { certificate: $PWD/tls.crt, key: $PWD/tls.key }"
  } >registry-$port.yml
done
"#;
    output(command("bash", ["-c", script, "bash"]).arg(scratch))?;
    let mut registries = Registries(Vec::new());
    for port in [5000, 5001, 5002] {
        let config = scratch.join(format!("registry-{port}.yml"));
        let mut serve = command("docker-registry", ["serve"]);
        serve.arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = serve.spawn().map_err(|source| Error::Start { program: "docker-registry".into(), source })?;
        registries.0.push(child);
        wait_for_port(port)?;
    }
    Ok(registries)
}

fn wait_for_port(port: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > end {
            return Err(Error::Check(format!("no registry answers on port {port}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Every command, its exit code, and a word that its output must contain.
fn tour(show: &mut Show) {
    show.title("An image into the registry, by skopeo, and out of it, by dhow");
    for image in ["busybox:latest", "debian:12"] {
        let name = image.split(':').next().unwrap_or_default();
        show.ok(
            &format!("skopeo copy --quiet --dest-tls-verify=false oci:images:{name} docker://127.0.0.1:5000/{image}"),
            "",
        );
    }
    show.ok("time dhow pull 127.0.0.1:5000/debian:12", "debian:12");
    show.ok("dhow pull -q 127.0.0.1:5000/busybox", "busybox");
    show.ok("dhow images", "127.0.0.1:5000/debian");
    show.ok("dhow history 127.0.0.1:5000/debian:12 | head -3", "");
    show.ok("dhow inspect 127.0.0.1:5000/debian:12 | grep -m1 Architecture", "amd64");

    show.title("Running");
    show.ok("dhow run --rm 127.0.0.1:5000/debian:12 cat /etc/debian_version", "12.");
    show.ok("echo hi | dhow run --rm -i 127.0.0.1:5000/busybox cat", "hi");
    show.code(1, "dhow run --rm 127.0.0.1:5000/busybox false", "");
    show.code(42, "dhow run --rm 127.0.0.1:5000/busybox sh -c 'exit 42'", "");
    show.code(127, "dhow run --rm 127.0.0.1:5000/busybox nonesuch", "nonesuch");
    show.code(126, "dhow run --rm 127.0.0.1:5000/busybox /etc/passwd", "/etc/passwd");
    show.ok("script -qec \"dhow run --rm -it 127.0.0.1:5000/debian:12 bash -c 'tty; ps 2>/dev/null || echo a terminal'\" /dev/null", "/dev/");

    show.title("A server in the background, with a published port");
    show.ok("dhow run -d --name web -p 8080:80 127.0.0.1:5000/busybox httpd -f -p 80 -h /var/www", "");
    show.ok(
        "for try in 1 2 3 4 5 6 7 8 9; do busybox wget -qO- http://127.0.0.1:8080/ && break; sleep 0.1; done",
        "hello from a container",
    );
    show.ok("dhow ps", "web");
    show.ok("dhow port web", "8080");
    show.ok("dhow exec web sh -c 'echo exec sees: $(hostname), $(ps | grep -c httpd) lines about httpd'", "exec sees");
    show.ok("address=$(dhow inspect -f '{{.NetworkSettings.IPAddress}}' web); dhow run --rm 127.0.0.1:5000/busybox wget -qO- http://$address/", "hello from a container");
    show.ok("dhow stop -t 1 web && dhow ps -a", "Exited");
    show.ok("dhow start web && dhow restart -t 1 web && dhow kill web && dhow wait web", "137");
    show.ok("dhow rm -f web", "web");
    show.ok("dhow run --name talk 127.0.0.1:5000/busybox sh -c 'echo out; echo err >&2' 2>&1; dhow logs talk 2>&1; dhow rm talk", "err");

    show.title("A change: commit, tag, push, and back on another state root");
    show.ok("dhow run --name change 127.0.0.1:5000/debian:12 sh -c 'echo changed >/etc/motd; rm /etc/issue'", "");
    show.ok("dhow commit -m 'a changed motd' -a 'anna' change 127.0.0.1:5000/anna/changed:1", "sha256:");
    show.ok("dhow tag 127.0.0.1:5000/anna/changed:1 127.0.0.1:5000/anna/changed:latest", "");
    show.ok("dhow push 127.0.0.1:5000/anna/changed:1", "");
    show.ok("skopeo inspect --tls-verify=false docker://127.0.0.1:5000/anna/changed:1 | grep -c sha256:", "");
    show.ok("dhow --root other/lib --runroot other/run pull -q 127.0.0.1:5000/anna/changed:1", "");
    show.ok("dhow --root other/lib --runroot other/run run --rm 127.0.0.1:5000/anna/changed:1 sh -c 'cat /etc/motd; ls /etc/issue || echo issue is gone'", "issue is gone");

    show.title("Registries with a password and with a CA of their own");
    show.code(1, "echo wrong | dhow login 127.0.0.1:5001 -u anna --password-stdin", "");
    show.ok("echo secret | dhow login 127.0.0.1:5001 -u anna --password-stdin", "Login Succeeded");
    show.ok("dhow tag 127.0.0.1:5000/busybox 127.0.0.1:5001/busybox && dhow push -q 127.0.0.1:5001/busybox", "");
    show.code(1, "echo secret | dhow login localhost:5002 -u anna --password-stdin", "certificate");
    show.ok("mkdir -p /etc/docker/certs.d/localhost:5002 && cp ca.crt /etc/docker/certs.d/localhost:5002/", "");
    show.ok("echo secret | dhow login localhost:5002 -u anna --password-stdin", "Login Succeeded");
    show.ok("dhow tag 127.0.0.1:5000/busybox localhost:5002/busybox && dhow push -q localhost:5002/busybox", "");

    show.title("A bundle made by hand, with the runtime alone");
    show.ok("mkdir -p bundle/rootfs/bin && cp $(command -v busybox) bundle/rootfs/bin/sh && cd bundle && dhow-runtime spec && sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"sh\", \"-c\", \"echo pid $$ of a bundle\"/' config.json && dhow-runtime --root ../rt run -b . by-hand", "pid 1 of a bundle");

    show.title("And away");
    show.ok("dhow system prune -af && dhow rmi -f $(dhow images -q) 2>/dev/null; dhow --root other/lib --runroot other/run system prune -af; dhow images; dhow ps -a", "");
    show.ok("find lib other/lib -type f | xargs -r ls -l; du -sh lib other/lib", "");
}

/// Types commands, shows what they say, and keeps count.
struct Show {
    home: PathBuf,
    path: std::ffi::OsString,
    done: usize,
    failed: Vec<String>,
    start: Instant,
}

impl Show {
    fn new(scratch: &Path, dist: &Path) -> Result<Self> {
        // Certificates are looked for in /etc/docker/certs.d: an /etc of our own keeps the machine's as it is.
        let certs = Path::new("/etc/docker");
        if certs.exists() {
            output(&mut command("mount", ["-t", "tmpfs", "tmpfs", "/etc/docker"]))?;
        } else {
            let upper = ["upper", "work"].map(|name| scratch.join("etc").join(name));
            for dir in &upper {
                std::fs::create_dir_all(dir).map_err(file_error("create", dir))?;
            }
            let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper[0].display(), upper[1].display());
            output(command("mount", ["-t", "overlay", "overlay", "-o"]).arg(options).arg("/etc"))?;
        }
        let mut path = dist.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path.push(":/usr/sbin:/sbin");
        Ok(Self { home: scratch.to_owned(), path, done: 0, failed: Vec::new(), start: Instant::now() })
    }

    fn title(&self, title: &str) {
        println!("\n==> {title}");
    }

    fn ok(&mut self, line: &str, word: &str) {
        self.code(0, line, word);
    }

    fn code(&mut self, expected: i32, line: &str, word: &str) {
        println!("\n$ {line}");
        self.done += 1;
        let out = Command::new("timeout")
            .args(["-k", "5", "300", "bash", "-c"])
            .arg(format!("TIMEFORMAT='(%R s)'; exec 2>&1; {line}"))
            .current_dir(&self.home)
            .env("PATH", &self.path)
            .env("HOME", &self.home)
            .env("DHOW_ROOT", self.home.join("lib"))
            .env("DHOW_RUNROOT", self.home.join("run"))
            .stdin(Stdio::null())
            .output();
        let out = match out {
            Ok(out) => out,
            Err(error) => return self.wrong(line, &format!("cannot be started: {error}")),
        };
        let said = String::from_utf8_lossy(&out.stdout);
        for text in said.lines() {
            println!("  {text}");
        }
        let code = out.status.code();
        if expected != 0 {
            println!("  (exit code {})", code.map_or("none".to_owned(), |code| code.to_string()));
        }
        if code != Some(expected) {
            self.wrong(line, &format!("exit code {code:?} instead of {expected}"));
        } else if !said.contains(word) {
            self.wrong(line, &format!("does not say {word:?}"));
        }
    }

    fn wrong(&mut self, line: &str, what: &str) {
        println!("  !! {what}");
        self.failed.push(format!("{line}: {what}"));
    }

    fn close(self) -> Result<()> {
        println!("\n==> {} commands in {:.0} s", self.done, self.start.elapsed().as_secs_f64());
        if self.failed.is_empty() {
            println!("    all did what they should");
            return Ok(());
        }
        Err(Error::Check(format!("{} of them went wrong:\n{}", self.failed.len(), self.failed.join("\n"))))
    }
}
