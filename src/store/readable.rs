//! Tells whether stored files can be read now.

use std::{fs, io};

use super::{Store, blocking::blocking, error::StoreError};

impl Store {
    /// Checks that the store's folders can be read. A store that is empty or was deleted can be.
    ///
    /// # Errors
    /// The system's error.
    pub async fn check_folders(&self) -> Result<(), StoreError> {
        let folders = [self.layout.entries(), self.layout.blobs()];
        let check = blocking(move || {
            for folder in folders {
                match fs::read_dir(folder).map(|mut files| files.next().transpose()) {
                    Ok(first) => drop(first?),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let folder = self.layout.folder();
        check.await.map_err(|source| StoreError::io(folder, source))
    }
}
