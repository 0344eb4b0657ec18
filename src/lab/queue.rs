//! Commands waiting to be served, of which only the latest of a kind matters: a slider sends many states, the engine
//! needs the last. Used on both sides: before a frame's messages leave the page, and before the worker takes one up.

use super::protocol::Command;
use super::train::orders::Order;

/// A queue in which a newer `Explore`, `Show` or `Probe` takes the place of an older one that nobody has begun.
#[derive(Debug, Default)]
pub struct Queue(Vec<Command>);

impl Queue {
    pub fn push(&mut self, command: Command) {
        if let Some(old) = self.0.iter().position(|waiting| replaces(&command, waiting)) {
            self.0.remove(old);
        }
        self.0.push(command);
    }

    /// The next command: what makes a state before what looks at it, otherwise in the order they came.
    pub fn pop(&mut self) -> Option<Command> {
        let first = (0..self.0.len()).min_by_key(|at| rank(&self.0[*at]))?;
        Some(self.0.remove(first))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a command waits that makes the one being served pointless.
    pub fn outdates(&self, serving: &Command) -> bool {
        let looks = matches!(serving, Command::Show { .. } | Command::Probe { .. } | Command::Sources { .. });
        let changes = |waiting: &Command| looks && matches!(waiting, Command::Explore { .. });
        self.0.iter().any(|w| matches!(w, Command::Cancel) || replaces(w, serving) || changes(w))
    }

    /// Drops sweeps and races that nobody has begun.
    pub fn drop_sweeps(&mut self) {
        self.0.retain(|waiting| !measures(waiting));
    }

    /// Whether runs in training are to do something else.
    pub fn has_orders(&self) -> bool {
        self.0.iter().any(|waiting| matches!(waiting, Command::Train { .. }))
    }

    /// The next command that measures nothing: what may be served in the pauses of one that does.
    pub fn pop_between(&mut self) -> Option<Command> {
        let serves = |c: &Command| !measures(c) && !matches!(c, Command::Start { .. });
        let first = (0..self.0.len()).filter(|i| serves(&self.0[*i])).min_by_key(|i| rank(&self.0[*i]))?;
        Some(self.0.remove(first))
    }
}

/// Whether it takes the time of several graphs, one after the other.
fn measures(command: &Command) -> bool {
    matches!(command, Command::Sweep { .. } | Command::Forms { .. })
}

fn replaces(new: &Command, old: &Command) -> bool {
    match (new, old) {
        (Command::Explore { .. }, Command::Explore { .. })
        | (Command::Open, Command::Open)
        | (Command::Visible { .. }, Command::Visible { .. }) => true,
        (Command::Show { plate: a, .. }, Command::Show { plate: b, .. })
        | (Command::Sources { plate: a }, Command::Sources { plate: b })
        | (Command::Probe { plate: a, .. }, Command::Probe { plate: b, .. }) => a == b,
        // What is only made ready gives way to what is to be trained, and to what is made ready later.
        (Command::Train { order: new }, Command::Train { order: old }) => {
            matches!(**old, Order::Prepare { .. }) && matches!(**new, Order::Prepare { .. } | Order::Start { .. })
        }
        _ => false,
    }
}

fn rank(command: &Command) -> u8 {
    match command {
        Command::Start { .. }
        | Command::Remember { .. }
        | Command::Visible { .. }
        | Command::Cancel
        | Command::LoseDevice => 0,
        Command::Open | Command::Close | Command::Explore { .. } | Command::Arrived | Command::Train { .. } => 1,
        Command::Show { .. } => 2,
        Command::Probe { .. } | Command::Sources { .. } | Command::Layers { .. } => 3,
        Command::Sweep { .. } | Command::Forms { .. } => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::experiment::Experiment;

    fn explore(n: usize) -> Command {
        Command::Explore { experiment: Box::new(Experiment { n, ..Default::default() }) }
    }

    #[test]
    fn only_the_latest_state_is_kept() {
        let mut queue = Queue::default();
        queue.push(Command::Probe { plate: 0, query: 1, key: 1 });
        queue.push(explore(16));
        queue.push(Command::Probe { plate: 1, query: 2, key: 2 });
        queue.push(explore(32));
        queue.push(Command::Probe { plate: 0, query: 3, key: 3 });
        assert!(queue.outdates(&explore(16)));
        assert_eq!(queue.pop(), Some(explore(32)));
        assert_eq!(queue.pop(), Some(Command::Probe { plate: 1, query: 2, key: 2 }));
        assert_eq!(queue.pop(), Some(Command::Probe { plate: 0, query: 3, key: 3 }));
        assert!(queue.is_empty());
        assert_eq!(queue.pop(), None);
    }
}
