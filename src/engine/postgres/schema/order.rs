//! The order in which objects are created: by dependency, then by section, kind, schema and name.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use crate::engine::postgres::schema::object::{Address, Item, Kind, Object, Section};
use crate::engine::postgres::schema::quote;
use crate::platform::error::{Error, Result};

/// One step that is not yet in its final position.
struct Node {
    object: Object,
    /// The nodes that are created before it, as indexes in the list of nodes.
    needs: BTreeSet<usize>,
    first_form: bool,
    /// True if this is the rest of an object whose first form was split off.
    completes: bool,
}

/// Sorts the objects into the steps that create them. Cycles are broken at objects that can be created in two steps.
/// A cycle without such an object is an error that names its members.
pub fn sort(objects: Vec<Object>) -> Result<Vec<Item>> {
    let mut nodes: Vec<Node> = objects
        .into_iter()
        .map(|object| Node { object, needs: BTreeSet::new(), first_form: false, completes: false })
        .collect();
    nodes.sort_by(|a, b| key(a).cmp(&key(b)));
    let places: HashMap<Address, usize> =
        nodes.iter().enumerate().map(|(index, node)| (node.object.address, index)).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        node.needs = node.object.needs.iter().filter_map(|need| places.get(need).copied()).collect();
        node.needs.remove(&index);
    }
    loop {
        let cycles = cycles(&nodes);
        if cycles.is_empty() {
            break;
        }
        for cycle in cycles {
            split(&mut nodes, &cycle, &places)?;
        }
    }
    postpone(&mut nodes, &places)?;
    place(nodes, &places)
}

/// Returns the sort key for objects that do not depend on each other.
fn key(node: &Node) -> (Section, Kind, &Option<String>, &str, Address) {
    let object = &node.object;
    (object.section, object.kind, &object.schema, &object.name, object.address)
}

/// Returns the sets of nodes that all depend on each other: Tarjan's strongly connected components, without recursion.
fn cycles(nodes: &[Node]) -> Vec<Vec<usize>> {
    const UNVISITED: usize = usize::MAX;
    let mut number = vec![UNVISITED; nodes.len()];
    let mut low = vec![0; nodes.len()];
    let mut on_stack = vec![false; nodes.len()];
    let mut stack = Vec::new();
    let mut cycles = Vec::new();
    let mut count = 0;
    for root in 0..nodes.len() {
        if number[root] != UNVISITED {
            continue;
        }
        let mut walk: Vec<(usize, Vec<usize>)> = vec![(root, nodes[root].needs.iter().copied().collect())];
        (number[root], low[root], on_stack[root]) = (count, count, true);
        stack.push(root);
        count += 1;
        while let Some((at, rest)) = walk.last_mut() {
            let at = *at;
            if let Some(next) = rest.pop() {
                if number[next] == UNVISITED {
                    (number[next], low[next], on_stack[next]) = (count, count, true);
                    stack.push(next);
                    count += 1;
                    walk.push((next, nodes[next].needs.iter().copied().collect()));
                } else if on_stack[next] {
                    low[at] = low[at].min(number[next]);
                }
                continue;
            }
            walk.pop();
            if let Some((parent, _)) = walk.last() {
                low[*parent] = low[*parent].min(low[at]);
            }
            if low[at] == number[at] {
                let start = stack.iter().rposition(|node| *node == at).unwrap_or(0);
                let members = stack.split_off(start);
                for member in &members {
                    on_stack[*member] = false;
                }
                if members.len() > 1 {
                    cycles.push(members);
                }
            }
        }
    }
    cycles
}

/// Breaks a cycle: one of its members is created in two steps, and the others depend only on its first form.
fn split(nodes: &mut Vec<Node>, cycle: &[usize], places: &HashMap<Address, usize>) -> Result<()> {
    let chosen = cycle.iter().copied().filter(|index| nodes[*index].object.stub.is_some()).min();
    let Some(chosen) = chosen else {
        let mut names: Vec<String> = cycle.iter().map(|index| describe(&nodes[*index].object)).collect();
        names.sort();
        return Err(Error::failed(format!("these objects depend on each other: {}", names.join(", "))));
    };
    let first = first_form(nodes, chosen, places);
    for index in cycle {
        if *index != chosen && nodes[*index].needs.remove(&chosen) {
            nodes[*index].needs.insert(first);
        }
    }
    Ok(())
}

/// Splits the first form off a node. Returns the index of the new node.
fn first_form(nodes: &mut Vec<Node>, index: usize, places: &HashMap<Address, usize>) -> usize {
    let first = nodes.len();
    let node = &mut nodes[index];
    let stub = node.object.stub.take().unwrap_or_default();
    let mut object = node.object.clone();
    let needs = stub.needs.iter().filter_map(|need| places.get(need).copied()).collect();
    object.create = stub.create;
    object.comments = Vec::new();
    object.grants = Vec::new();
    object.set_owner = Vec::new();
    if object.kind == Kind::Type {
        object.kind = Kind::ShellType;
    } else {
        object.set_owner = std::mem::take(&mut node.object.set_owner);
    }
    object.section = Section::Pre;
    node.object.create = stub.complete;
    node.needs.insert(first);
    node.completes = true;
    nodes.push(Node { object, needs, first_form: true, completes: false });
    first
}

/// Moves each node that depends on a node of a later section into that section, except its first form.
fn postpone(nodes: &mut Vec<Node>, places: &HashMap<Address, usize>) -> Result<()> {
    loop {
        let late = nodes.iter().enumerate().find_map(|(index, node)| {
            let latest = node.needs.iter().map(|need| nodes[*need].object.section).max()?;
            (latest > node.object.section).then_some((index, latest))
        });
        let Some((index, section)) = late else { return Ok(()) };
        if nodes[index].object.section == Section::Pre && nodes[index].object.stub.is_some() {
            let first = first_form(nodes, index, places);
            // The nodes that stay before the rows depend only on the first form.
            for (other, node) in nodes.iter_mut().enumerate() {
                if other != index && node.object.section == Section::Pre && node.needs.remove(&index) {
                    node.needs.insert(first);
                }
            }
        }
        let object = &mut nodes[index].object;
        if matches!(object.kind, Kind::Table | Kind::Schema | Kind::Extension) {
            let name = describe(object);
            return Err(Error::failed(format!(
                "{name} depends on an object that is created after the rows are loaded"
            )));
        }
        object.section = section;
    }
}

/// Puts the nodes into their final order.
fn place(nodes: Vec<Node>, places: &HashMap<Address, usize>) -> Result<Vec<Item>> {
    let mut waiting: Vec<usize> = nodes.iter().map(|node| node.needs.len()).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for need in &node.needs {
            dependents[*need].push(index);
        }
    }
    let mut ready: BinaryHeap<Reverse<(_, usize)>> = BinaryHeap::new();
    let mut order = Vec::with_capacity(nodes.len());
    for section in [Section::Pre, Section::Post, Section::Last] {
        for (index, node) in nodes.iter().enumerate() {
            if node.object.section == section && waiting[index] == 0 {
                ready.push(Reverse((key(node), index)));
            }
        }
        while let Some(Reverse((_, index))) = ready.pop() {
            order.push(index);
            for next in &dependents[index] {
                waiting[*next] -= 1;
                if waiting[*next] == 0 && nodes[*next].object.section == section {
                    ready.push(Reverse((key(&nodes[*next]), *next)));
                }
            }
        }
    }
    if order.len() != nodes.len() {
        return Err(Error::failed("cannot determine the order in which to create the objects of the schema"));
    }
    let mut ids = vec![0; nodes.len()];
    for (id, index) in order.iter().enumerate() {
        ids[*index] = id;
    }
    let mut slots: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    let mut items = Vec::with_capacity(slots.len());
    for (id, index) in order.into_iter().enumerate() {
        let Some(Node { object, needs, first_form, .. }) = slots[index].take() else { continue };
        let mut needs: Vec<usize> = needs.into_iter().map(|need| ids[need]).collect();
        needs.sort_unstable();
        items.push(Item {
            id,
            oid: object.address.oid,
            kind: object.kind,
            schema: object.schema,
            name: object.name,
            identity: object.identity,
            section: object.section,
            first_form,
            create: object.create,
            owner: object.owner,
            set_owner: object.set_owner,
            comments: object.comments,
            grants: object.grants,
            roles: object.roles,
            needs,
            table: object.table.and_then(|table| places.get(&table)).map(|table| ids[*table]),
            tablespace: object.tablespace,
            provided: false,
            refers_to: None,
            exists: false,
        });
    }
    Ok(items)
}

/// Returns the kind and the name of an object, for messages.
fn describe(object: &Object) -> String {
    match &object.schema {
        Some(schema) => format!("{} {}", object.kind.words(), quote::qualified(schema, &object.name)),
        None => format!("{} {}", object.kind.words(), quote::ident(&object.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::postgres::schema::object::Stub;

    fn object(oid: u32, kind: Kind, name: &str, needs: &[u32]) -> Object {
        let mut object = Object::new(Address::new(1, oid), kind, Some("s"), name);
        object.needs = needs.iter().map(|need| Address::new(1, *need)).collect();
        object.create = vec![format!("make {name}")];
        object
    }

    fn names(items: &[Item]) -> Vec<String> {
        items.iter().map(|item| item.create.join(";")).collect()
    }

    #[test]
    fn dependencies_come_first_then_kind_and_name() {
        let objects = vec![
            object(1, Kind::Table, "b", &[]),
            object(2, Kind::Table, "a", &[4]),
            object(3, Kind::Index, "i", &[1]).at(Section::Post),
            object(4, Kind::View, "v", &[]),
        ];
        let items = sort(objects).expect("no cycle");
        assert_eq!(names(&items), ["make b", "make v", "make a", "make i"]);
        assert_eq!(items[2].needs, [1]);
    }

    #[test]
    fn a_cycle_is_broken_by_a_first_form() {
        let mut view = object(1, Kind::View, "v", &[2]);
        view.stub = Some(Stub { create: vec!["stub v".into()], needs: vec![], complete: vec!["complete v".into()] });
        let objects = vec![view, object(2, Kind::Function, "f", &[1]), object(3, Kind::View, "w", &[1])];
        let items = sort(objects).expect("a stub");
        assert_eq!(names(&items), ["stub v", "make f", "complete v", "make w"]);
        assert!(items[0].first_form);
    }

    #[test]
    fn a_cycle_without_a_first_form_names_its_members() {
        let objects = vec![object(1, Kind::View, "v", &[2]), object(2, Kind::Function, "f", &[1])];
        let error = sort(objects).expect_err("a cycle");
        assert_eq!(error.to_string(), "these objects depend on each other: function s.f, view s.v");
    }

    #[test]
    fn objects_that_depend_on_a_later_section_are_postponed() {
        let mut view = object(1, Kind::View, "v", &[2]);
        view.stub = Some(Stub { create: vec!["stub v".into()], needs: vec![], complete: vec!["complete v".into()] });
        let objects = vec![
            view,
            object(2, Kind::Constraint, "pk", &[]).at(Section::Post),
            object(3, Kind::Function, "f", &[1]),
            object(4, Kind::Function, "g", &[2]),
        ];
        let items = sort(objects).expect("a stub");
        assert_eq!(names(&items), ["stub v", "make f", "make pk", "make g", "complete v"]);
    }
}
