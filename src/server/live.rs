//! The changes of the start page, while a browser shows it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{background::BackgroundTasks, connections::Connections, home::Home, traffic::Traffic};
use crate::{
    cache::Cache,
    page::{LivePart, event},
};

/// Interval at which the parts of [`Now`](crate::page::Now) are made again. The stream also ends by it when the server
/// stops.
const TICK: Duration = Duration::from_secs(1);
/// Ticks after which the parts of [`Overview`](crate::page::Overview) are made again, and a line is sent in any case:
/// a server notices a browser that is gone only when it sends something.
const OVERVIEW_TICKS: u32 = 5;

/// A browser that shows the page.
struct Viewer {
    home: Arc<Home>,
    cache: Cache,
    tasks: BackgroundTasks,
    connections: Arc<Connections>,
    traffic: Arc<Traffic>,
    ticks: Interval,
    tick: u32,
    /// The text of each event that was sent last.
    sent: HashMap<&'static str, String>,
    _place: OwnedSemaphorePermit,
}

/// The parts of the page as events, first all of them and then those that have changed; `None` if too many browsers
/// show the page.
pub(super) fn changes(
    home: &Arc<Home>,
    cache: Cache,
    tasks: BackgroundTasks,
    connections: &Arc<Connections>,
    traffic: &Arc<Traffic>,
) -> Option<impl Stream<Item = String> + use<>> {
    let place = home.viewers.clone().try_acquire_owned().ok()?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let viewer = Viewer {
        home: home.clone(),
        cache,
        tasks,
        connections: connections.clone(),
        traffic: traffic.clone(),
        ticks,
        tick: 0,
        sent: HashMap::new(),
        _place: place,
    };
    Some(stream::unfold(viewer, |mut viewer| async move {
        let events = viewer.next().await?;
        Some((events, viewer))
    }))
}

impl Viewer {
    /// The next events; `None` once the server stops.
    async fn next(&mut self) -> Option<String> {
        loop {
            self.ticks.tick().await;
            if self.connections.is_stopping() {
                return None;
            }
            let is_slow_tick = self.tick.is_multiple_of(OVERVIEW_TICKS);
            self.tick = self.tick.wrapping_add(1);
            let events = self.changed(is_slow_tick).await;
            if !events.is_empty() {
                return Some(events);
            }
            if is_slow_tick {
                // A comment.
                return Some(":\n\n".to_owned());
            }
        }
    }

    /// The events of everything that has changed.
    async fn changed(&mut self, with_overview: bool) -> String {
        let background = self.tasks.numbers();
        let now = self.home.now(&self.cache, &background, &self.traffic);
        let now = now.await;
        let mut events = self.if_changed("title", now.title().to_owned());
        let mut parts = now.parts();
        if with_overview {
            let pins = self.home.pins().await;
            let overview = self.home.overview(&self.cache, &background, pins).await;
            parts.extend(overview.parts());
        }
        for LivePart { id, html, .. } in parts {
            events += &self.if_changed(id, html);
        }
        events
    }

    /// The event `name` with `text`; nothing if the browser has that already.
    fn if_changed(&mut self, name: &'static str, text: String) -> String {
        if self.sent.get(name) == Some(&text) {
            return String::new();
        }
        let event = event(name, &text);
        self.sent.insert(name, text);
        event
    }
}
