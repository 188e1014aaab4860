//! What a container has of the caches and of the memory bandwidth, and what it uses of them: the `intel_rdt` of runc's `events`.

use std::path::Path;

use serde::Serialize;

use super::Group;

/// A container's place in resctrl. What the machine does not have is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// What can be shared of the L3 cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// The L3 cache, as those without a class have it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The L3 cache, as the container has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What can be shared of the memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthInfo>,
    /// The memory bandwidth, as those without a class have it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The memory bandwidth, as the container has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// Traffic, by node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mbm_stats: Vec<Traffic>,
    /// Occupied cache, by node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmt_stats: Vec<Occupancy>,
}

/// `info/L3`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheInfo {
    /// All of it, as a mask.
    pub cbm_mask: String,
    /// The fewest bits of a share.
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// `info/MB`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BandwidthInfo {
    /// In steps of so many percent.
    pub bandwidth_gran: u64,
    /// Whether throttling is linear.
    pub delay_linear: u64,
    /// The smallest share in percent.
    pub min_bandwidth: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// Bytes that were moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// To all memory.
    pub mbm_total_bytes: u64,
    /// To the node's own.
    pub mbm_local_bytes: u64,
}

/// Bytes of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// Now.
    pub llc_occupancy: u64,
}

impl Shares {
    /// Reads them.
    pub(crate) fn read(root: &Path, group: &Group) -> Self {
        let mut shares = Self::default();
        let info = root.join("info");
        let schema = |dir: &Path, resource: &str| line(&text(&dir.join("schemata")), resource);
        if let (cache, true) = (info.join("L3"), info.join("L3").is_dir()) {
            shares.l3_cache_info = Some(CacheInfo {
                cbm_mask: text(&cache.join("cbm_mask")),
                min_cbm_bits: number(&cache.join("min_cbm_bits")),
                num_closids: number(&cache.join("num_closids")),
            });
            shares.l3_cache_schema_root = schema(root, "L3");
            shares.l3_cache_schema = schema(&group.class, "L3");
        }
        if let (bandwidth, true) = (info.join("MB"), info.join("MB").is_dir()) {
            shares.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(&bandwidth.join("bandwidth_gran")),
                delay_linear: number(&bandwidth.join("delay_linear")),
                min_bandwidth: number(&bandwidth.join("min_bandwidth")),
                num_closids: number(&bandwidth.join("num_closids")),
            });
            shares.mem_bw_schema_root = schema(root, "MB");
            shares.mem_bw_schema = schema(&group.class, "MB");
        }
        let counted = group.monitor.as_ref().unwrap_or(&group.class).join("mon_data");
        let features = text(&info.join("L3_MON/mon_features"));
        let mut nodes: Vec<_> = std::fs::read_dir(counted).into_iter().flatten().flatten().map(|e| e.path()).collect();
        nodes.sort();
        for node in nodes {
            if features.contains("mbm_") {
                let mbm_total_bytes = number(&node.join("mbm_total_bytes"));
                shares
                    .mbm_stats
                    .push(Traffic { mbm_total_bytes, mbm_local_bytes: number(&node.join("mbm_local_bytes")) });
            }
            if features.contains("llc_occupancy") {
                shares.cmt_stats.push(Occupancy { llc_occupancy: number(&node.join("llc_occupancy")) });
            }
        }
        shares
    }
}

/// A small file's content; what can't be read is empty, as a counter that the kernel says is "Unavailable".
fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn number(path: &Path) -> u64 {
    text(path).parse().unwrap_or_default()
}

/// The line of a resource: `L3:0=f`.
fn line(schemata: &str, resource: &str) -> String {
    let of = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name == resource);
    schemata.lines().map(str::trim).find(of).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::IntelRdt;

    #[test]
    fn shares_and_what_is_used_of_them() {
        let root = tempfile::tempdir().unwrap();
        let plan = IntelRdt { clos_id: Some("gold".into()), schemata: Vec::new(), monitoring: true };
        let group = Group::new(root.path(), &plan, "c");
        assert_eq!(serde_json::to_value(Shares::read(root.path(), &group)).unwrap(), json!({}));
        for (path, text) in [
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "4\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "20\n"),
            ("info/MB/num_closids", "4\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
            ("schemata", "    MB:0=100\n    L3:0=fffff\n"),
            ("gold/schemata", "    MB:0=20\n    L3:0=f\n"),
            ("gold/mon_groups/c/mon_data/mon_L3_00/llc_occupancy", "7\n"),
            ("gold/mon_groups/c/mon_data/mon_L3_00/mbm_total_bytes", "9\n"),
            ("gold/mon_groups/c/mon_data/mon_L3_00/mbm_local_bytes", "Unavailable\n"),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let expected = json!({
            "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 4},
            "l3_cache_schema_root": "L3:0=fffff", "l3_cache_schema": "L3:0=f",
            "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 20, "num_closids": 4},
            "mem_bw_schema_root": "MB:0=100", "mem_bw_schema": "MB:0=20",
            "mbm_stats": [{"mbm_total_bytes": 9, "mbm_local_bytes": 0}], "cmt_stats": [{"llc_occupancy": 7}]
        });
        assert_eq!(serde_json::to_value(Shares::read(root.path(), &group)).unwrap(), expected);
    }
}
