//! Platforms: `os/architecture[/variant]`, and which manifest of an index fits one.
//!
//! Normalisation follows containerd's (x86_64 is amd64, aarch64 is arm64 whose default variant is v8, armhf is arm/v7).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image was built for, or what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOOS: `linux`.
    pub os: String,
    /// GOARCH: `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `v7` of arm, `v8` of arm64; `None` if the architecture has none or its default is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A string that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: want os/architecture or os/architecture/variant")]
pub struct PlatformError(pub String);

impl Platform {
    /// The platform this program was built for.
    #[must_use]
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// A platform in its normal form.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("amd64", Some("v1")) => ("amd64", None),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", v) => ("arm64", v),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            ("powerpc64" | "powerpc64le", v) => ("ppc64le", v),
            (other, v) => (other, v),
        };
        Self { os: os.to_ascii_lowercase(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// How well an image for `offered` runs where `self` is asked for: 0 is exact, larger is a poorer fit, `None` not
    /// at all. An arm of a lower variant runs on a higher one.
    #[must_use]
    pub fn distance(&self, offered: &Self) -> Option<u32> {
        let offered = Self::new(&offered.os, &offered.architecture, offered.variant.as_deref());
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (version(self), version(&offered)) {
            (want, have) if have <= want => Some(want - have),
            _ => None,
        }
    }
}

/// The number in `v7`; no variant is the architecture's base.
fn version(platform: &Platform) -> u32 {
    let base = if platform.architecture == "arm64" { 8 } else { 1 };
    platform.variant.as_deref().and_then(|v| v.strip_prefix('v')?.split('.').next()?.parse().ok()).unwrap_or(base)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let fine =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if !parts.iter().all(fine) {
            return Err(PlatformError(text.to_owned()));
        }
        match parts.as_slice() {
            ["linux" | "Linux"] => Ok(Self::host()),
            [architecture] => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(PlatformError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_and_prints() {
        for (text, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64", "linux/amd64"),
            ("Linux/AArch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/i686", "linux/386"),
            ("arm64", "linux/arm64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), want);
        }
        for text in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn chooses_the_best_variant() {
        let want: Platform = "linux/arm/v7".parse().unwrap();
        let of = |text: &str| want.distance(&text.parse().unwrap());
        assert_eq!(of("linux/arm/v7"), Some(0));
        assert_eq!(of("linux/arm/v6"), Some(1));
        assert_eq!(of("linux/arm/v8"), None);
        assert_eq!(of("linux/arm64"), None);
        let amd: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(amd.distance(&"linux/amd64/v3".parse().unwrap()), None);
        assert_eq!(amd.distance(&"linux/amd64/v1".parse().unwrap()), Some(0));
        assert_eq!(amd.distance(&"windows/amd64".parse().unwrap()), None);
    }
}
