//! Names of files: as text, whatever their bytes are; and which of them no person has put there.

use std::ffi::OsStr;

/// Folders that systems and storage devices put beside photos, and what they hold.
const NOT_THE_ALBUM: [(&str, &str); 14] = [
    // Synology (DiskStation's indexing service and shared folders' recycle bin).
    ("@eaDir", "a NAS's thumbnails"),
    ("#recycle", "a recycle bin"),
    ("#snapshot", "a NAS's snapshots"),
    // QNAP.
    ("@Recycle", "a recycle bin"),
    ("@Recently-Snapshot", "a NAS's snapshots"),
    // FreeDesktop's thumbnail specification, and cameras' cards in Android phones.
    (".thumbnails", "thumbnails"),
    (".thumb", "thumbnails"),
    // Windows.
    ("$RECYCLE.BIN", "a recycle bin"),
    ("RECYCLER", "a recycle bin"),
    ("System Volume Information", "a system's folder"),
    // Linux (fsck), FreeDesktop's trash, macOS, and archives made there.
    ("lost+found", "a system's folder"),
    (".Trash", "a recycle bin"),
    (".Trashes", "a recycle bin"),
    ("__MACOSX", "what macOS puts beside an archive's files"),
];

/// Why a folder or file of this name is left out; `None` where nothing speaks against it.
pub(super) fn left_out(name: &str) -> Option<&'static str> {
    let known = NOT_THE_ALBUM
        .iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known));
    match known {
        Some((_, what)) => Some(what),
        // FreeDesktop's trash of one user.
        None if name.starts_with(".Trash-") => Some("a recycle bin"),
        None if name.starts_with('.') => Some("hidden"),
        None => None,
    }
}

/// A name as text: bytes that are no UTF-8 (a disk of another time or system) as `\xE9`.
pub(super) fn text(name: &[u8]) -> String {
    let mut out = String::new();
    for chunk in name.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02X}"));
        }
    }
    out
}

/// The same of a name that the system gives.
pub(super) fn os_text(name: &OsStr) -> String {
    text(name.as_encoded_bytes())
}

/// Tells apart what has become one text: to all but the first of equal ones a number is added. `ids` are
/// sorted.
pub(super) fn tell_apart<T>(entries: &mut [T], id: impl Fn(&mut T) -> &mut String) {
    let (mut last, mut times) = (String::new(), 0);
    for entry in entries {
        let id = id(entry);
        match *id == last {
            true => {
                times += 1;
                id.push_str(&format!(" ({})", times + 1));
            }
            false => {
                last.clone_from(id);
                times = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_name() {
        assert_eq!(text("Größe".as_bytes()), "Größe");
        assert_eq!(text(b"caf\xE9.jpg"), "caf\\xE9.jpg");
        let mut ids = ["a", "a", "a", "b"].map(String::from);
        tell_apart(&mut ids, |id| id);
        assert_eq!(ids, ["a", "a (2)", "a (3)", "b"]);
    }

    #[test]
    fn folders_of_systems_are_known() {
        for name in [
            "@eaDir",
            "$Recycle.Bin",
            ".Trash-1000",
            ".hidden",
            "__MACOSX",
        ] {
            assert!(left_out(name).is_some(), "{name}");
        }
        for name in ["Recycled art", "2019", "lost", "@home", "#1"] {
            assert!(left_out(name).is_none(), "{name}");
        }
    }
}
