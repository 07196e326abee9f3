//! [`decide`]: which files to remove. A pure function of the inventory and the limits.

/// A stored file, as the decision sees it. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InventoryItem {
    /// The space it takes, in bytes.
    pub(super) bytes: u64,
    /// Its last use.
    pub(super) used: u64,
    /// For an index entry, a manifest or a sidecar, the blobs that it lists, as positions in the inventory.
    pub(super) lists: Vec<usize>,
    /// Why it must stay; `None` if it may go.
    pub(super) hold: Option<Hold>,
    /// True if it belongs only to releases that are older than those to keep.
    pub(super) is_old_release: bool,
}

/// Why a file must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// A project or toolchain that was warmed needs it.
    Pinned,
    /// A command that is running stored or used it, and may pin it at its end.
    Running,
    /// It belongs to one of the releases to keep.
    KeptRelease,
    /// A registry's configuration, without which nothing of it can be served.
    Configuration,
}

/// Limits of one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RemovalLimits {
    /// Space for the whole store, in bytes.
    pub(super) max_bytes: Option<u64>,
    /// Files not used since then go, in milliseconds since 1970.
    pub(super) used_since: Option<u64>,
}

/// Why a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The store is larger than allowed, and this file's last use is the oldest.
    Size,
    /// It was not used for longer than allowed.
    Age,
    /// It belongs to a release that is older than those to keep.
    OldRelease,
    /// It lists no file that stays stored, so it would promise what cannot be had.
    ListsNothing,
}

/// The files to remove, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RemovalPlan {
    /// Positions in the inventory.
    pub(super) removals: Vec<(usize, Reason)>,
    /// Space of files that a pin needs, in bytes.
    pub(super) pinned_bytes: u64,
    /// Space of the whole store afterwards, in bytes.
    pub(super) bytes_after: u64,
}

/// Chooses the files to remove. `other_bytes` is the space of files that are not in the inventory.
///
/// A listing of a held file is held too. A listing counts as used when it or anything it lists was used, so it never
/// goes before that. When the last of what it lists goes, it goes too, and before it: an interruption must not leave
/// an index entry whose crates are gone, because it would offer all of them to an offline resolve.
pub(super) fn decide(
    inventory: &[InventoryItem],
    other_bytes: u64,
    limits: RemovalLimits,
) -> RemovalPlan {
    let (held, used) = with_listed(inventory);
    let mut order: Vec<_> = (0..inventory.len())
        .filter(|&at| held[at].is_none())
        .collect();
    order.sort_by_key(|&at| (used[at], !inventory[at].lists.is_empty(), at));
    let mut left = other_bytes + inventory.iter().map(|item| item.bytes).sum::<u64>();
    let mut reasons: Vec<Option<Reason>> = vec![None; inventory.len()];
    for &at in &order {
        let item = &inventory[at];
        let is_too_old = limits.used_since.is_some_and(|since| used[at] < since);
        reasons[at] = match (item.is_old_release, is_too_old) {
            (true, _) => Some(Reason::OldRelease),
            (false, true) => Some(Reason::Age),
            (false, false) => None,
        };
        left -= reasons[at].map_or(0, |_| item.bytes);
    }
    for &at in &order {
        if limits.max_bytes.is_none_or(|max| left <= max) {
            break;
        }
        if reasons[at].is_none() {
            reasons[at] = Some(Reason::Size);
            left -= inventory[at].bytes;
        }
    }
    for &at in &order {
        let lists = &inventory[at].lists;
        let lists_nothing = !lists.is_empty() && lists.iter().all(|&of| reasons[of].is_some());
        if reasons[at].is_none() && lists_nothing {
            reasons[at] = Some(Reason::ListsNothing);
            left -= inventory[at].bytes;
        }
    }
    let is_pinned = |at: &usize| held[*at] == Some(Hold::Pinned);
    let pinned = (0..inventory.len()).filter(is_pinned);
    RemovalPlan {
        removals: listings_first(inventory, &order, &reasons),
        pinned_bytes: pinned.map(|at| inventory[at].bytes).sum(),
        bytes_after: left,
    }
}

/// Holds and last uses, in which those of a listing include those of what it lists.
fn with_listed(inventory: &[InventoryItem]) -> (Vec<Option<Hold>>, Vec<u64>) {
    let of_listed = |item: &InventoryItem| {
        let listed = item.lists.iter().map(|&at| &inventory[at]);
        let used = listed.clone().map(|listed| listed.used).max();
        let mut holds = listed.filter_map(|listed| listed.hold);
        let hold = item.hold.or_else(|| holds.next());
        (hold, item.used.max(used.unwrap_or(0)))
    };
    inventory.iter().map(of_listed).unzip()
}

/// The removals in order, each listing before the first file that it lists.
fn listings_first(
    inventory: &[InventoryItem],
    order: &[usize],
    reasons: &[Option<Reason>],
) -> Vec<(usize, Reason)> {
    let mut listings_of: Vec<Vec<usize>> = vec![Vec::new(); inventory.len()];
    for &at in order {
        for &listed in &inventory[at].lists {
            listings_of[listed].push(at);
        }
    }
    let mut removals = Vec::new();
    let mut is_added = vec![false; inventory.len()];
    for &at in order {
        let listings = listings_of[at].iter().copied();
        for at in listings.chain([at]) {
            let is_due = !std::mem::replace(&mut is_added[at], true);
            if is_due && let Some(reason) = reasons[at] {
                removals.push((at, reason));
            }
        }
    }
    removals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(bytes: u64, used: u64) -> InventoryItem {
        InventoryItem {
            bytes,
            used,
            lists: Vec::new(),
            hold: None,
            is_old_release: false,
        }
    }

    fn listing(bytes: u64, used: u64, lists: &[usize]) -> InventoryItem {
        InventoryItem {
            lists: lists.to_vec(),
            ..blob(bytes, used)
        }
    }

    fn held(item: InventoryItem, hold: Hold) -> InventoryItem {
        InventoryItem {
            hold: Some(hold),
            ..item
        }
    }

    fn max(bytes: u64) -> RemovalLimits {
        RemovalLimits {
            max_bytes: Some(bytes),
            used_since: None,
        }
    }

    fn removed(decision: &RemovalPlan) -> Vec<usize> {
        decision.removals.iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn the_longest_unused_go_first_until_the_rest_fits() {
        let inventory = [blob(10, 3), blob(10, 1), blob(10, 2), blob(10, 4)];
        for (limit, expected) in [
            (45, &[][..]),
            (44, &[1]),
            (35, &[1]),
            (25, &[1, 2]),
            (0, &[1, 2, 0, 3]),
        ] {
            let decision = decide(&inventory, 5, max(limit));
            assert_eq!(removed(&decision), expected, "{limit}");
            let gone = 10 * expected.len() as u64;
            assert_eq!(decision.bytes_after, 45 - gone);
        }
        assert!(
            decide(&inventory, 5, RemovalLimits::default())
                .removals
                .is_empty()
        );
    }

    #[test]
    fn held_files_and_their_listings_stay_at_any_size() {
        let inventory = [
            held(blob(10, 1), Hold::Pinned),
            listing(2, 0, &[0]),
            held(blob(20, 1), Hold::Running),
            blob(30, 9),
        ];
        let decision = decide(&inventory, 0, max(1));
        assert_eq!(removed(&decision), [3]);
        assert_eq!(decision.pinned_bytes, 12);
        assert_eq!(decision.bytes_after, 32);
    }

    #[test]
    fn a_listing_goes_before_the_last_of_what_it_lists_and_stays_while_any_stays() {
        let inventory = [blob(10, 1), blob(10, 2), listing(1, 9, &[0, 1]), blob(5, 5)];
        assert_eq!(removed(&decide(&inventory, 0, max(16))), [0]);
        let decision = decide(&inventory, 0, max(6));
        let expected = [
            (2, Reason::ListsNothing),
            (0, Reason::Size),
            (1, Reason::Size),
        ];
        assert_eq!(decision.removals, expected);
    }

    #[test]
    fn age_and_old_releases_need_no_size() {
        let mut old = blob(10, 9);
        old.is_old_release = true;
        let kept = held(
            InventoryItem {
                is_old_release: true,
                ..blob(10, 0)
            },
            Hold::KeptRelease,
        );
        let inventory = [blob(10, 4), blob(10, 5), old, kept];
        let limits = RemovalLimits {
            max_bytes: None,
            used_since: Some(5),
        };
        let decision = decide(&inventory, 0, limits);
        assert_eq!(
            decision.removals,
            [(0, Reason::Age), (2, Reason::OldRelease)]
        );
    }

    /// For many small inventories: nothing held goes, the limit holds unless only held files are left, no file with a
    /// later use goes for its size while one with an earlier use stays, and no listing outlives what it lists.
    #[test]
    fn every_decision_keeps_the_promises() {
        let mut state = 1_u64;
        let mut dice = |sides: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % sides
        };
        for round in 0..3_000 {
            let count = 1 + usize::try_from(dice(12)).unwrap();
            let mut inventory: Vec<InventoryItem> = (0..count)
                .map(|_| InventoryItem {
                    hold: (dice(4) == 0).then_some(Hold::Pinned),
                    ..blob(1 + dice(50), dice(6))
                })
                .collect();
            for _ in 0..dice(6) {
                let lists: Vec<_> = (0..count).filter(|_| dice(3) == 0).collect();
                inventory.push(listing(1 + dice(5), dice(6), &lists));
            }
            let limit = dice(300);
            let decision = decide(&inventory, 7, max(limit));
            let gone = removed(&decision);
            let stays = |at: usize| !gone.contains(&at);
            let is_held = |at: usize| {
                inventory[at].hold.is_some()
                    || inventory[at]
                        .lists
                        .iter()
                        .any(|&of| inventory[of].hold.is_some())
            };
            let left: u64 = (0..inventory.len())
                .filter(|&at| stays(at))
                .map(|at| inventory[at].bytes)
                .sum();
            assert_eq!(decision.bytes_after, left + 7, "{round}");
            let only_held = (0..inventory.len()).all(|at| !stays(at) || is_held(at));
            assert!(decision.bytes_after <= limit || only_held, "{round}");
            for (at, item) in inventory.iter().enumerate() {
                assert!(stays(at) || !is_held(at), "{round}");
                let lists = &item.lists;
                let lists_gone = !lists.is_empty() && lists.iter().all(|&of| !stays(of));
                assert!(!lists_gone || !stays(at), "{round}: {at} promises");
                if !stays(at) {
                    let place = |of: &usize| gone.iter().position(|gone| gone == of).unwrap();
                    for of in lists.iter().filter(|&&of| !stays(of)) {
                        assert!(place(&at) < place(of), "{round}: {at} after {of}");
                    }
                }
            }
            let youngest_gone = (0..count).filter(|&at| !stays(at));
            let youngest_gone = youngest_gone.map(|at| inventory[at].used).max();
            let oldest_left = (0..count).filter(|&at| stays(at) && !is_held(at));
            let oldest_left = oldest_left.map(|at| inventory[at].used).min();
            if let (Some(gone), Some(left)) = (youngest_gone, oldest_left) {
                assert!(gone <= left, "{round}: {gone} went before {left}");
            }
        }
    }
}
