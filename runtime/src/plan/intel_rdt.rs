//! `linux.intelRdt`.

use crate::config;
use crate::{Error, Result};

/// Shares of caches and of memory bandwidth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntelRdt {
    /// The class of service; none: one of the container's own, by its name.
    pub clos_id: Option<String>,
    /// Lines for the file `schemata`, in the order in which they are written.
    pub schemata: Vec<String>,
    /// With a monitoring group.
    pub monitoring: bool,
}

/// What resctrl itself has in its root, which is no class.
const RESERVED: [&str; 5] = [".", "..", "info", "mon_data", "mon_groups"];

impl IntelRdt {
    pub(crate) fn new(given: &config::IntelRdt) -> Result<Self> {
        let error = |field: &str, problem: &str| Error::config(format!("linux.intelRdt.{field}"), problem);
        let id = &given.clos_id;
        if RESERVED.contains(&id.as_str()) || id.contains(['/', '\n', '\0']) {
            return Err(error("closID", "is no name of a class of service"));
        }
        let bandwidth = &given.mem_bw_schema;
        if !bandwidth.is_empty() && (!bandwidth.starts_with("MB:") || bandwidth.contains('\n')) {
            return Err(error("memBwSchema", "must be one line that begins with MB:"));
        }
        // The line of the field made for it wins over one that has come along with the cache's.
        let cache = given.l3_cache_schema.lines().filter(|line| bandwidth.is_empty() || !line.starts_with("MB:"));
        let own = cache.chain(bandwidth.lines()).chain(given.schemata.iter().flat_map(|lines| lines.lines()));
        let schemata: Vec<_> = own.map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if let Some(line) = schemata.iter().find(|line| !line.contains(':')) {
            return Err(error("schemata", &format!("{line:?} is not RESOURCE:ID=VALUE;…")));
        }
        Ok(Self { clos_id: (!id.is_empty()).then(|| id.clone()), schemata, monitoring: given.enable_monitoring })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<IntelRdt> {
        IntelRdt::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn lines_are_in_order() {
        let given = r#"{"l3CacheSchema":"L3:0=f\nMB:0=10","memBwSchema":"MB:0=20","schemata":["L2:0=1","MB:0=30"]}"#;
        assert_eq!(plan(given).unwrap().schemata, ["L3:0=f", "MB:0=20", "L2:0=1", "MB:0=30"]);
        let alone = plan(r#"{"closID":"gold","l3CacheSchema":"L3:0=f\nMB:0=10"}"#).unwrap();
        assert_eq!((alone.clos_id.as_deref(), alone.schemata.len()), (Some("gold"), 2));
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field) in [
            (r#"{"closID":"mon_groups"}"#, "closID"),
            (r#"{"closID":"a/b"}"#, "closID"),
            (r#"{"memBwSchema":"L3:0=1"}"#, "memBwSchema"),
            (r#"{"memBwSchema":"MB:0=1\nL3:0=1"}"#, "memBwSchema"),
            (r#"{"schemata":["nonsense"]}"#, "schemata"),
        ] {
            let error = plan(json).unwrap_err().to_string();
            assert!(error.starts_with(&format!("linux.intelRdt.{field}: ")), "{error}");
        }
    }
}
