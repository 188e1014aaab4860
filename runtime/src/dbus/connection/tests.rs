//! Against a peer that says what the test wants, and against a real bus.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use super::*;

const ASK: Call = Call { destination: "org.example", path: "/", interface: "org.example", method: "Ask" };
const DONE: (&str, &str) = ("org.example", "Done");

/// Connects, to a service itself, and lets `peer` answer the first call.
fn conversation(greeting: &'static [u8], peer: impl FnOnce(&mut UnixStream) + Send + 'static) -> Result<Connection> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = vec![0; GREETING.len()];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(hello, GREETING);
        stream.write_all(greeting).unwrap();
        // The first bytes of the call.
        stream.read_exact(&mut [0; 4]).ok();
        peer(&mut stream);
        // Until the test has had enough.
        stream.read_to_end(&mut Vec::new()).ok();
    });
    Connection::open(&[Address::direct(path.to_str().unwrap())], Duration::from_secs(300))
}

const WELCOME: &[u8] = b"DATA\r\nOK 0123456789abcdef\r\n";

fn signal(member: &str, sender: &str, text: &str) -> Vec<u8> {
    let fields = [(field::INTERFACE, DONE.0.into()), (field::MEMBER, member.into()), (field::SENDER, sender.into())];
    wire::encode(wire::SIGNAL, 1, &fields, &[text.into()])
}

fn answer(kind: u8, to: u32, text: &str) -> Vec<u8> {
    let fields = [
        (field::REPLY_SERIAL, Value::Uint32(to)),
        (field::SENDER, ":1.0".into()),
        (field::ERROR_NAME, "org.example.Error".into()),
    ];
    wire::encode(kind, 2, &fields, &[text.into()])
}

#[test]
fn signals_before_the_answer_are_kept_and_forged_ones_are_not_believed() {
    let mut bus = conversation(WELCOME, |stream| {
        for bytes in [
            signal("Done", ":1.66", "forged"),
            signal("Other", ":1.0", "other"),
            signal("Done", ":1.0", "early"),
            answer(wire::RETURN, 77, "to somebody else"),
            answer(wire::RETURN, 1, "yes"),
            signal("Done", ":1.0", "late"),
        ] {
            stream.write_all(&bytes).unwrap();
        }
    })
    .unwrap();
    let reply = bus.call(ASK, &[Value::Uint32(1)]).unwrap();
    assert_eq!(reply.texts("s").unwrap(), ["yes"]);
    let deadline = Instant::now() + Duration::from_secs(300);
    for expected in ["early", "late"] {
        let signal = bus.signal(DONE, &reply.sender, deadline, "Ask").unwrap();
        assert_eq!(signal.texts("s").unwrap(), [expected]);
    }
}

#[test]
fn an_error_is_an_answer() {
    let mut bus = conversation(WELCOME, |stream| stream.write_all(&answer(wire::ERROR, 1, "no")).unwrap()).unwrap();
    let error = bus.call(ASK, &[]).unwrap_err();
    assert!(error.is("org.example.Error"));
    assert_eq!(error.to_string(), "Ask: no");
}

#[test]
fn whoever_does_not_answer_is_not_waited_for_for_ever() {
    let mut bus = conversation(WELCOME, |_| {}).unwrap();
    bus.patience = Duration::from_millis(30);
    assert!(matches!(bus.call(ASK, &[]), Err(BusError::Timeout { call: "Ask", .. })));
    let signal = bus.signal(DONE, ":1.0", Instant::now() + Duration::from_millis(30), "Ask");
    assert!(matches!(signal, Err(BusError::Timeout { .. })));
}

#[test]
fn a_connection_that_breaks_or_talks_nonsense_is_an_error() {
    let half = &answer(wire::RETURN, 1, "yes")[..20];
    for sent in [
        half.to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
        vec![b'l', 2, 0, 1, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut bus = conversation(WELCOME, move |stream| {
            stream.write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        })
        .unwrap();
        let error = bus.call(ASK, &[]).unwrap_err();
        assert!(matches!(error, BusError::Broken { .. } | BusError::Malformed { .. }), "{error}");
    }
}

#[test]
fn a_bus_may_refuse_or_babble() {
    assert!(matches!(conversation(b"REJECTED EXTERNAL\r\n", |_| {}), Err(BusError::Refused { .. })));
    static BABBLE: [u8; 4096] = [b'x'; 4096];
    assert!(matches!(conversation(&BABBLE, |_| {}), Err(BusError::Malformed { .. })));
}

#[test]
fn nobody_at_an_address() {
    let error = Connection::open(&[Address::bus("/nowhere/bus")], Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, BusError::Connect { .. }), "{error}");
}

/// A bus of the test's own, gone with it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_real_bus_understands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let config = dir.path().join("bus.conf");
    let rules =
        "<policy context='default'><allow send_destination='*'/><allow own='*'/><allow eavesdrop='true'/></policy>";
    let text = format!("<busconfig><listen>unix:path={}</listen>{rules}</busconfig>", path.display());
    std::fs::write(&config, text).unwrap();
    let mut daemon = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--nopidfile", "--print-address"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("dbus-daemon is needed");
    let stdout = daemon.stdout.take().unwrap();
    let _daemon = Daemon(daemon);
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address).unwrap();
    let list = Address::list(address.trim()).unwrap();
    let mut bus = Connection::open(&list, Duration::from_secs(300)).unwrap();
    bus.listen("type='signal',interface='org.freedesktop.DBus',member='NameOwnerChanged'").unwrap();
    // Properties of every shape go out in a form that the bus takes for well formed: it breaks the connection if not.
    let properties = vec![
        Value::property("A", Value::Bool(true)),
        Value::property("B", Value::bytes(&[1, 2, 3])),
        Value::property("C", Value::Array("(ss)".into(), vec![Value::Struct(vec!["x".into(), "y".into()])])),
        Value::property("D", Value::Array("u".into(), vec![Value::Uint32(1)])),
        Value::property("E", Value::Double(0.5)),
        Value::property("F", Value::Array("s".into(), Vec::new())),
    ];
    let arguments = [
        "a.scope".into(),
        "replace".into(),
        Value::Array("(sv)".into(), properties),
        Value::Array("(sa(sv))".into(), Vec::new()),
    ];
    let error = bus.call(ASK, &arguments).unwrap_err();
    assert!(error.is("org.freedesktop.DBus.Error.ServiceUnknown"), "{error}");
    // A second connection makes the bus send the signal that the first one listens for.
    drop(Connection::open(&list, Duration::from_secs(300)).unwrap());
    let deadline = Instant::now() + Duration::from_secs(300);
    let interface = ("org.freedesktop.DBus", "NameOwnerChanged");
    let signal = bus.signal(interface, "org.freedesktop.DBus", deadline, "NameOwnerChanged").unwrap();
    assert_eq!(signal.texts("sss").unwrap().len(), 3);
}
