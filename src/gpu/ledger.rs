//! The memory ledger: a browser tells nobody how much GPU memory is in use, so every buffer is counted here.

use super::Category;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Counts the bytes of all buffers that are alive. Cheap to clone; clones are the same ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    alive: BTreeMap<u64, Item>,
    next: u64,
    current: u64,
    peak: u64,
    by_category: BTreeMap<Category, u64>,
    at_peak: BTreeMap<Category, u64>,
}

/// One buffer that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub label: String,
    pub category: Category,
    pub bytes: u64,
}

impl Ledger {
    /// Bytes alive now.
    pub fn current(&self) -> u64 {
        self.0.borrow().current
    }

    /// Most bytes alive at once since the start or the last [`Ledger::reset_peak`].
    pub fn peak(&self) -> u64 {
        self.0.borrow().peak
    }

    /// Bytes alive now by category; a category without buffers is absent.
    pub fn by_category(&self) -> BTreeMap<Category, u64> {
        self.0.borrow().by_category.clone()
    }

    /// What [`Ledger::peak`] was made of.
    pub fn peak_by_category(&self) -> BTreeMap<Category, u64> {
        self.0.borrow().at_peak.clone()
    }

    pub fn reset_peak(&self) {
        let mut state = self.0.borrow_mut();
        state.peak = state.current;
        state.at_peak = state.by_category.clone();
    }

    /// Buffers alive now, oldest first: what a leak is found by.
    pub fn alive(&self) -> Vec<Item> {
        self.0.borrow().alive.values().cloned().collect()
    }

    /// Buffers made so far, alive or not: a step that allocates shows in it.
    pub fn allocations(&self) -> u64 {
        self.0.borrow().next
    }

    fn add(&self, item: Item) -> u64 {
        let mut state = self.0.borrow_mut();
        let id = state.next;
        state.next += 1;
        state.current += item.bytes;
        *state.by_category.entry(item.category).or_default() += item.bytes;
        if state.current > state.peak {
            state.peak = state.current;
            state.at_peak = state.by_category.clone();
        }
        state.alive.insert(id, item);
        id
    }

    fn remove(&self, id: u64) {
        let mut state = self.0.borrow_mut();
        let Some(item) = state.alive.remove(&id) else { return };
        state.current -= item.bytes;
        let left = state.by_category.entry(item.category).or_default();
        *left -= item.bytes;
        if *left == 0 {
            state.by_category.remove(&item.category);
        }
    }
}

/// A device buffer that the ledger counts until it is dropped, when its memory is given back at once.
#[derive(Debug)]
pub struct Buffer {
    raw: wgpu::Buffer,
    ledger: Ledger,
    id: u64,
    bytes: u64,
}

impl Buffer {
    pub(super) fn new(ledger: &Ledger, raw: wgpu::Buffer, label: &str, category: Category) -> Self {
        let bytes = raw.size();
        let id = ledger.add(Item { label: label.into(), category, bytes });
        Self { raw, ledger: ledger.clone(), id, bytes }
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Without this, a browser keeps the memory until its garbage collector runs.
        self.raw.destroy();
        self.ledger.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_counts_by_category_and_keeps_the_peak() {
        let ledger = Ledger::default();
        let item = |bytes, category| Item { label: "x".into(), category, bytes };
        let a = ledger.add(item(100, Category::Parameters));
        let b = ledger.add(item(50, Category::Staging));
        ledger.remove(a);
        ledger.add(item(20, Category::Staging));
        assert_eq!((ledger.current(), ledger.peak(), ledger.allocations()), (70, 150, 3));
        assert_eq!(ledger.by_category(), BTreeMap::from([(Category::Staging, 70)]));
        assert_eq!(ledger.peak_by_category(), BTreeMap::from([(Category::Parameters, 100), (Category::Staging, 50)]));
        ledger.remove(b);
        ledger.reset_peak();
        assert_eq!((ledger.current(), ledger.peak()), (20, 20));
    }
}
