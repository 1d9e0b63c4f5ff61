//! `node remove` on real processes: under load, of the leader, of the dead, interrupted, and what becomes of whom is
//! removed.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustydb_tests::chaos::nodes::{Ground, Nodes, Setup};
use rustydb_tests::cluster::{PATIENCE, connect, text};
use rustydb_tests::load::{self, Load};

/// A cluster on loopback, with its folder.
fn cluster(members: u16, spare: u16) -> Result<(Nodes, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let nodes = Nodes::start(folder.path(), &Arc::new(Ground::Loopback), members, spare, &Setup::default())?;
    Ok((nodes, folder))
}

/// Connection string that names all members and is tried in their order.
fn everywhere(nodes: &Nodes) -> Result<String> {
    let ports: Vec<String> =
        nodes.numbers().map(|node| Ok(nodes.server(node)?.postgres.to_string())).collect::<Result<_>>()?;
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    Ok(format!("host={hosts} port={} user=postgres dbname=postgres connect_timeout=2", ports.join(",")))
}

/// Runs `node remove`, asked of one node; its exit code and what it printed.
fn ask(nodes: &Nodes, asked: u16, node: u16) -> Result<(Option<i32>, String)> {
    let output = nodes.server(asked)?.cli(&["node", "remove", &node.to_string()])?;
    Ok((output.status.code(), text(&output)))
}

/// Which nodes a member says that the cluster has.
fn listed(nodes: &Nodes, asked: u16) -> Result<Vec<u64>> {
    let status = nodes.server(asked)?.cli_json(&["cluster", "status"])?;
    Ok(status["nodes"].as_array().into_iter().flatten().filter_map(|node| node["node"].as_u64()).collect())
}

/// The voters of every group, as a member says.
fn voters(nodes: &Nodes, asked: u16) -> Result<Vec<Vec<u64>>> {
    let said = nodes.server(asked)?.cli_json(&["raft", "status"])?;
    let groups = said["groups"].as_array().cloned().unwrap_or_default();
    ensure!(groups.len() >= 2, "{said}");
    let voters = |group: &serde_json::Value| {
        group["voters"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect()
    };
    Ok(groups.iter().map(voters).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_removed_under_load_and_its_number_is_gone_for_ever() -> Result<()> {
    let (mut nodes, _folder) = cluster(3, 3)?;
    nodes.add_spare()?;
    let target = everywhere(&nodes)?;
    load::prepare(&connect(&target).await?, 4).await?;
    let load = Load::start(&target, 4);
    load.wait_for_progress(Instant::now(), PATIENCE).await?;

    let leader = nodes.leader()?;
    let (code, said) = ask(&nodes, leader, leader)?;
    ensure!(code == Some(0) && said.contains("is no member any more"), "{code:?} {said}\n{}", nodes.logs());
    ensure!(!said.contains("warning"), "three is a good number: {said}");
    nodes.leave_out(leader);
    let removed = nodes.server_mut(leader)?;
    let status = removed.wait_for_end()?;
    ensure!(status.success(), "{status}\n{}", removed.logged());
    removed.wait_logged("was removed from cluster")?;
    load.wait_for_progress(Instant::now(), PATIENCE).await?;

    let others: Vec<u16> = nodes.numbers().collect();
    let expected: Vec<u64> = others.iter().map(|node| u64::from(*node)).collect();
    for node in &others {
        ensure!(listed(&nodes, *node)? == expected, "node {node} lists {:?}", listed(&nodes, *node)?);
        for voters in voters(&nodes, *node)? {
            ensure!(voters == expected, "{voters:?}\n{}", nodes.logs());
        }
    }
    // Asked again, it is what was asked for; a number that never was is refused.
    let (code, said) = ask(&nodes, others[0], leader)?;
    ensure!(code == Some(0) && said.contains("is no member any more"), "{said}");
    let (code, said) = ask(&nodes, others[0], 9)?;
    ensure!(code == Some(1) && said.contains("node 9 is not a member of this cluster"), "{said}");
    // Its data is refused, and its number is, with an empty folder too.
    let (code, said) = nodes.server(leader)?.refusal()?;
    ensure!(code == Some(1) && said.contains("cannot be used again"), "{code:?} {said}");
    let removed = nodes.server_mut(leader)?;
    std::fs::remove_dir_all(&removed.data)?;
    removed.start()?;
    let address = removed.interconnect_address();
    let output = nodes.server(others[0])?.cli(&["node", "add", &address])?;
    ensure!(output.status.code() == Some(1) && text(&output).contains("unused node.id"), "{}", text(&output));
    // Another number is another node.
    let fresh = nodes.add_spare()?;
    nodes.wait_whole()?;
    ensure!(listed(&nodes, others[0])?.contains(&u64::from(fresh)), "{:?}", listed(&nodes, others[0])?);
    load.wait_for_progress(Instant::now(), PATIENCE).await?;
    let report = load.finish(&connect(&everywhere(&nodes)?).await?).await.with_context(|| nodes.logs())?;
    ensure!(report.acknowledged > 0, "{report:?}");
    nodes.check_sound()
}

#[test]
fn dead_nodes_are_removed_and_what_would_lose_the_majority_is_refused() -> Result<()> {
    let (mut nodes, _folder) = cluster(3, 1)?;
    let fourth = nodes.add_spare()?;
    nodes.kill(fourth)?;
    let (code, said) = ask(&nodes, 1, fourth)?;
    ensure!(code == Some(0), "{code:?} {said}\n{}", nodes.logs());
    nodes.leave_out(fourth);
    nodes.wait_whole()?;
    ensure!(listed(&nodes, 1)? == [1, 2, 3], "{:?}", listed(&nodes, 1)?);

    nodes.kill(3)?;
    let (code, said) = ask(&nodes, 1, 2)?;
    ensure!(code == Some(1) && said.contains("node 3 cannot vote now"), "{code:?} {said}");
    ensure!(listed(&nodes, 1)? == [1, 2, 3] && nodes.server_mut(2)?.is_alive()?, "a refusal did something");
    let (code, said) = ask(&nodes, 1, 3)?;
    ensure!(code == Some(0) && said.contains("warning: 2 nodes survive no failure"), "{code:?} {said}");
    nodes.leave_out(3);
    nodes.wait_whole()?;
    // Nobody could tell the dead; they ask.
    for node in [3, fourth] {
        let (code, said) = nodes.server(node)?.refusal()?;
        ensure!(
            code == Some(1) && said.contains(&format!("node {node} was removed from cluster")),
            "{code:?} {said}"
        );
    }
    let (code, said) = ask(&nodes, 1, 1)?;
    ensure!(code == Some(0), "{code:?} {said}\n{}", nodes.logs());
    nodes.leave_out(1);
    ensure!(nodes.server_mut(1)?.wait_for_end()?.success(), "{}", nodes.logs());
    nodes.wait_whole()?;
    let (code, said) = ask(&nodes, 2, 2)?;
    ensure!(
        code == Some(1) && said.contains("no voter of the system group would be left"),
        "{code:?} {said}"
    );
    nodes.check_sound()
}

#[test]
fn a_removal_goes_on_when_its_leader_dies_and_reaches_who_was_away() -> Result<()> {
    let (mut nodes, _folder) = cluster(3, 2)?;
    let (fourth, _) = (nodes.add_spare()?, nodes.add_spare()?);
    let system =
        nodes.server(1)?.cli_json(&["cluster", "status"])?["leader"].as_u64().context("no leader")?;
    let system = u16::try_from(system)?;
    let away = if system == fourth { 1 } else { fourth };
    nodes.signal(away, "STOP")?;
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&nodes, system, away));
        nodes.server(system)?.wait_logged(&format!("removing a node node={away}"))?;
        nodes.signal(system, "KILL")?;
        // It failed, or was done just before: nobody minds.
        let _told = asking.join();
        Ok::<_, anyhow::Error>(())
    })?;
    nodes.kill(system)?;
    let other = nodes.numbers().find(|node| *node != system && *node != away).context("nobody is left")?;
    let (code, said) = ask(&nodes, other, away)?;
    ensure!(code == Some(0), "{code:?} {said}\n{}", nodes.logs());
    nodes.leave_out(away);
    nodes.start_dead()?;
    nodes.wait_whole()?;
    nodes.signal(away, "CONT")?;
    let removed = nodes.server_mut(away)?;
    ensure!(removed.wait_for_end()?.success(), "{}", removed.logged());
    removed.wait_logged("was removed from cluster")?;
    nodes.check_sound()
}
