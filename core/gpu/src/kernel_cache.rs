//! Compiled kernels, kept from one start to the next: the runtime reads and writes a folder of the user's cache,
//! which belongs to one version of the kernels on one kind of device. Two processes take turns at it; where
//! nothing can be written, kernels are compiled at every start.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where the user's cache is, and in it what belongs to these kernels on this device.
pub fn folder(device: &str, var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let var = |name| var(name).filter(|path| !path.is_empty());
    let cache = match var("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(var("HOME")?).join(".cache"),
    };
    let version = concat!("kernels-", env!("SEEDLING_KERNELS"));
    Some(cache.join("seedling").join(version).join(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_kept_in_the_users_cache() {
        let at = |cache: &str, home: &str| {
            let var = |name: &str| match name {
                "XDG_CACHE_HOME" => Some(cache.into()),
                _ => Some(home.into()),
            };
            folder("sm_90", var)
        };
        let version = concat!("seedling/kernels-", env!("SEEDLING_KERNELS"), "/sm_90");
        let under = |root: &str| Some(PathBuf::from(root).join(version));
        assert_eq!(at("/cache", "/home/a"), under("/cache"));
        assert_eq!(at("", "/home/a"), under("/home/a/.cache"));
        assert_eq!(at("", ""), None);
    }
}
