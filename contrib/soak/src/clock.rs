//! Jumps of the wall clock, for larder alone: with libfaketime, if it is installed.
//!
//! The library reads the offset from a file, so that it changes while a daemon runs. Timers keep their pace.

use std::path::{Path, PathBuf};

use testkit::larder::Site;

/// Where Debian's package `libfaketime` has the library.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The clock of all larder processes of a site.
#[derive(Debug)]
pub(crate) struct Clock {
    library: Option<&'static str>,
    offset_file: PathBuf,
}

impl Clock {
    /// The true time, until a jump. `folder` gets the file with the offset.
    pub(crate) fn new(folder: &Path) -> Self {
        let is_installed = |library: &&str| Path::new(library).is_file();
        let clock = Self {
            library: LIBRARIES.into_iter().find(is_installed),
            offset_file: folder.join("offset"),
        };
        clock.write(0);
        clock
    }

    /// Gives this clock to all processes of the site.
    pub(crate) fn install(&self, site: Site) -> Site {
        let Some(library) = self.library else {
            return site;
        };
        let file = self.offset_file.display().to_string();
        [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
        .into_iter()
        .fold(site, |site, (name, value)| site.variable(name, value))
    }

    /// Returns whether jumps are possible.
    pub(crate) fn can_jump(&self) -> bool {
        self.library.is_some()
    }

    /// Sets the clock to the true time and so many seconds. Processes notice within a second.
    pub(crate) fn jump(&self, seconds: i64) {
        self.write(seconds);
    }

    fn write(&self, seconds: i64) {
        // By a rename, so that no process reads half of it.
        let new = self.offset_file.with_extension("new");
        let written = std::fs::write(&new, format!("{seconds:+}\n"))
            .and_then(|()| std::fs::rename(&new, &self.offset_file));
        written.expect("the temporary folder is writable");
    }

    /// Removes what the library keeps in shared memory for a process that was killed.
    pub(crate) fn forget(&self, process: u32) {
        if self.library.is_some() {
            for name in ["faketime_shm_", "sem.faketime_sem_"] {
                // Absent if the process ended in good order.
                let _ = std::fs::remove_file(format!("/dev/shm/{name}{process}"));
            }
        }
    }
}
