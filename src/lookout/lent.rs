//! A value that is worked on by threads which may wait, but that is not waited for for ever: who works on it may wait for a disk
//! that does not answer. What the work is, is others' business.

use std::{fmt, time::Duration};

use tokio::{sync::oneshot, time::timeout};

/// Work that took too long is still under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away;

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a disk with registered lock files does not answer")
    }
}

/// The value, or what has become of it.
#[derive(Debug)]
pub(super) struct Lent<T> {
    here: T,
    /// Where it comes back to, when work took too long.
    away: Option<oneshot::Receiver<T>>,
    patience: Duration,
}

impl<T: Default + Send + 'static> Lent<T> {
    /// An empty one; `patience` is for each piece of work.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            here: T::default(),
            away: None,
            patience,
        }
    }

    /// Does some work on it, on a thread that may wait. Should the work die, the value is empty again.
    ///
    /// # Errors
    /// [`Away`], if this work takes too long, or work before it did and is not done yet.
    pub(super) async fn with<R: Default + Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, Away> {
        if let Some(away) = &mut self.away {
            match away.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return Err(Away),
                back => self.here = back.unwrap_or_default(),
            }
            self.away = None;
        }
        let mut here = std::mem::take(&mut self.here);
        let (back, mut away) = oneshot::channel();
        let work = tokio::task::spawn_blocking(move || {
            let done = work(&mut here);
            // Nobody waits for it any more only if the watch is over.
            let _ = back.send(here);
            done
        });
        match timeout(self.patience, work).await {
            Ok(done) => {
                self.here = away.try_recv().unwrap_or_default();
                Ok(done.unwrap_or_default())
            }
            Err(_) => {
                self.away = Some(away);
                Err(Away)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_that_hangs_is_not_waited_for_and_its_value_comes_back_when_it_ends() {
        let mut lent = Lent::<Vec<u8>>::new(Duration::from_millis(50));
        assert_eq!(lent.with(|value| value.push(1)).await, Ok(()));
        let (release, released) = mpsc::channel::<()>();
        let hung = lent.with(move |value| {
            let _ = released.recv();
            value.push(2);
        });
        assert_eq!(hung.await, Err(Away));
        assert_eq!(lent.with(|value| value.len()).await, Err(Away));
        release.send(()).unwrap();
        let back = async {
            loop {
                if let Ok(value) = lent.with(|value| value.clone()).await {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert_eq!(
            timeout(Duration::from_secs(20), back).await.unwrap(),
            [1, 2]
        );
    }

    #[tokio::test]
    async fn a_value_whose_work_dies_is_empty_again() {
        let mut lent = Lent::<Vec<u8>>::new(Duration::from_secs(20));
        assert_eq!(lent.with(|value| value.push(1)).await, Ok(()));
        let dies = |value: &mut Vec<u8>| assert!(value.is_empty(), "this is expected to die");
        assert_eq!(lent.with(dies).await, Ok(()));
        assert_eq!(lent.with(|value| value.len()).await, Ok(0));
    }
}
