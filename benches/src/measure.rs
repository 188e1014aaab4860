//! Timing commands in turn, and showing what came of it.

use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// One of those that are compared.
#[derive(Debug)]
pub struct Candidate {
    /// What the table calls it.
    pub name: String,
    /// Untimed, before each run.
    pub before: Vec<Command>,
    /// What is timed.
    pub timed: Timed,
    /// Untimed, after each run.
    pub after: Vec<Command>,
}

/// Commands whose time is taken together.
#[derive(Debug)]
pub enum Timed {
    /// One after the other.
    InTurn(Vec<Command>),
    /// All at once.
    AtOnce(Vec<Command>),
}

impl From<Command> for Timed {
    fn from(command: Command) -> Self {
        Self::InTurn(vec![command])
    }
}

impl Timed {
    fn run(&mut self) -> Result<(), String> {
        match self {
            Self::InTurn(commands) => commands.iter_mut().try_for_each(quiet),
            Self::AtOnce(commands) => std::thread::scope(|scope| {
                let running: Vec<_> = commands.iter_mut().map(|command| scope.spawn(|| quiet(command))).collect();
                let ended = running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a panic".into())));
                ended.collect::<Vec<_>>().into_iter().collect()
            }),
        }
    }
}

impl Candidate {
    /// A command with nothing around it.
    #[must_use]
    pub fn new(name: impl Into<String>, timed: impl Into<Timed>) -> Self {
        Self { name: name.into(), before: Vec::new(), timed: timed.into(), after: Vec::new() }
    }

    fn run(&mut self) -> Result<Duration, String> {
        for command in &mut self.before {
            quiet(command)?;
        }
        let start = Instant::now();
        let done = self.timed.run();
        let took = start.elapsed();
        for command in &mut self.after {
            quiet(command)?;
        }
        done.map(|()| took)
    }
}

/// Runs it without output; its last words when it fails.
///
/// # Errors
/// When it cannot be started or its exit code is not 0.
pub fn quiet(command: &mut Command) -> Result<(), String> {
    let line = format!("{command:?}");
    // A file, not a pipe: what a command leaves running may keep it open.
    let mut words = tempfile::tempfile().map_err(|error| error.to_string())?;
    let stderr = words.try_clone().map_err(|error| error.to_string())?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).status();
    let status = status.map_err(|error| format!("{line}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    let read = words.rewind().and_then(|()| words.read_to_end(&mut said));
    let said = read.map_or_else(|error| error.to_string(), |_| String::from_utf8_lossy(&said).into_owned());
    Err(format!("{line}: {status}: {}", said.lines().last().unwrap_or_default()))
}

/// The measured runs of one series.
#[derive(Debug)]
pub struct Series {
    title: String,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

/// Orders that are the same in every run of the benchmark (xorshift64).
struct Shuffle(u64);

impl Shuffle {
    fn order(&mut self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        for last in (1..length).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            order.swap(last, usize::try_from(self.0 % (last as u64 + 1)).unwrap_or(0));
        }
        order
    }
}

#[derive(Debug)]
struct Row {
    name: String,
    command: String,
    runs: Vec<Duration>,
}

impl Series {
    /// Runs each candidate once to warm up, leaves out those that cannot do it, and then all of them, `runs` times, each time in
    /// another order: the kernel clears away after one container while the next one is measured.
    #[must_use]
    pub fn measure(title: &str, candidates: Vec<Candidate>, runs: usize) -> Self {
        let mut left_out = Vec::new();
        let mut ready = Vec::new();
        for mut candidate in candidates {
            match candidate.run() {
                Ok(_) => ready.push((candidate, Vec::with_capacity(runs))),
                Err(why) => left_out.push(format!("{}: {why}", candidate.name)),
            }
        }
        let mut random = Shuffle(runs as u64 + 1);
        for _ in 0..runs {
            for index in random.order(ready.len()) {
                let (candidate, times) = &mut ready[index];
                match candidate.run() {
                    Ok(took) => times.push(took),
                    Err(why) => left_out.push(format!("{}, one run: {why}", candidate.name)),
                }
            }
        }
        let rows = ready
            .into_iter()
            .map(|(candidate, mut runs)| {
                runs.sort_unstable();
                Row { name: candidate.name, command: format!("{:?}", candidate.timed), runs }
            })
            .filter(|row| !row.runs.is_empty())
            .collect();
        Self { title: title.to_owned(), rows, left_out }
    }

    /// A table: median, the middle half, the extremes, and how many times ours each takes. The first row is ours unless
    /// `ours` names another.
    #[must_use]
    pub fn table(&self, ours: &str) -> String {
        let mut text = format!("\n{}\n", self.title);
        text += &format!(
            "  {:<28} {:>10} {:>21} {:>21} {:>5} {:>8}\n",
            "", "median", "middle half", "min .. max", "runs", "x ours"
        );
        let base = self.rows.iter().find(|row| row.name == ours).map(|row| row.at(0.5).as_secs_f64());
        for row in &self.rows {
            let ratio = base.map_or_else(String::new, |base| format!("{:.2}", row.at(0.5).as_secs_f64() / base));
            text += &format!(
                "  {:<28} {:>10} {:>21} {:>21} {:>5} {:>8}\n",
                row.name,
                show(row.at(0.5)),
                format!("{} .. {}", show(row.at(0.25)), show(row.at(0.75))),
                format!("{} .. {}", show(row.at(0.0)), show(row.at(1.0))),
                row.runs.len(),
                ratio
            );
        }
        for line in &self.left_out {
            text += &format!("  left out: {line}\n");
        }
        text
    }

    /// Everything that was measured.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let seconds: Vec<f64> = row.runs.iter().map(Duration::as_secs_f64).collect();
                json!({"name": row.name, "command": row.command, "seconds": seconds})
            })
            .collect();
        json!({"title": self.title, "rows": rows, "left_out": self.left_out})
    }
}

impl Row {
    /// A quantile; the runs are sorted.
    fn at(&self, part: f64) -> Duration {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into a short list")]
        let index = (part * self.runs.len().saturating_sub(1) as f64).round() as usize;
        self.runs.get(index).copied().unwrap_or_default()
    }
}

fn show(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 1000.0 { format!("{milliseconds:.2} ms") } else { format!("{:.2} s", time.as_secs_f64()) }
}

/// Keeps the raw runs.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(series: &[Series], about: &Value, file: &Path) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let all: Vec<Value> = series.iter().map(Series::json).collect();
    std::fs::write(file, serde_json::to_vec_pretty(&json!({"about": about, "series": all}))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_ratios() {
        let row = |name: &str, runs: &[u64]| Row {
            name: name.into(),
            command: String::new(),
            runs: runs.iter().map(|ms| Duration::from_millis(*ms)).collect(),
        };
        let series = Series {
            title: "t".into(),
            rows: vec![row("dhow", &[1, 2, 3]), row("peer", &[4, 6, 2000])],
            left_out: vec!["x: gone".into()],
        };
        let table = series.table("dhow");
        assert!(table.contains("2.00 ms") && table.contains("3.00") && table.contains("2.00 s"), "{table}");
        assert!(table.contains("left out: x: gone"));
    }

    #[test]
    fn who_fails_is_left_out_with_its_words() {
        let mut sh = Command::new("sh");
        sh.args(["-c", "echo no such thing >&2; exit 3"]);
        let candidates = vec![Candidate::new("true", Command::new("true")), Candidate::new("sh", sh)];
        let series = Series::measure("t", candidates, 3);
        assert_eq!(series.rows.len(), 1);
        assert_eq!(series.rows[0].runs.len(), 3);
        assert!(series.left_out[0].contains("no such thing"), "{:?}", series.left_out);
    }
}
