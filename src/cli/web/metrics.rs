//! A snapshot as metrics. Labels are the names of links alone, which the user of a client has
//! given, and of tiers: nothing that a peer says makes a series, and no series says a destination
//! or a key.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::cli::status::snapshot::{Lane, Link, Process, Session};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// In OpenMetrics' form.
pub(super) fn text(process: &Process) -> String {
    let mut registry = Registry::with_prefix("imux");
    let about = vec![("version", process.program_version.clone()), ("role", process.role.clone())];
    registry.register("build", "What this process is", Info::new(about));
    sessions(&mut registry, &process.sessions);
    totals(&mut registry, &process.links);
    now(&mut registry, process);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn sessions(registry: &mut Registry, sessions: &[Session]) {
    let sum = |of: fn(&Session) -> u64| sessions.iter().map(of).fold(0, u64::saturating_add);
    let mut gauge = |name: &str, help: &str, unit: Option<Unit>, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, gauge),
            None => registry.register(name, help, gauge),
        }
    };
    gauge("sessions", "Sessions that are open", None, sessions.len() as u64);
    let open = "Connections that are open, flows of datagrams among them";
    gauge("connections", open, None, sum(|it| it.streams_open));
    gauge("flows", "Flows of datagrams that are open", None, sum(|it| it.flows_open));
    let held = sum(|it| it.held_bytes);
    gauge("unacknowledged", "Written and not known to have arrived", Some(Unit::Bytes), held);
    let waiting = sum(|it| it.pending_bytes);
    gauge("pending", "Waiting for a lane", Some(Unit::Bytes), waiting);
}

/// What only grows, by link.
fn totals(registry: &mut Registry, links: &[Link]) {
    let mut counter = |name: &str, help: &str, unit: Option<Unit>, of: fn(&Link) -> u64| {
        let family = Family::<Labels, Counter>::default();
        for link in links {
            family.get_or_create(&label(link)).inc_by(of(link));
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    };
    let bytes = || Some(Unit::Bytes);
    counter("sent", "Payload given to a link's lanes", bytes(), |it| it.sent_bytes);
    counter("received", "Payload received on a link's lanes", bytes(), |it| it.received_bytes);
    counter("resent", "Payload given to a lane after another", bytes(), |it| it.resent_bytes);
    counter("lanes_made", "Lanes that came up", None, |it| it.lanes_made);
    counter("lanes_lost", "Lanes that went before their session", None, |it| it.lanes_lost);
}

/// What is so now, by link.
fn now(registry: &mut Registry, process: &Process) {
    let lanes_of = |link: &Link| {
        let all = process.sessions.iter().flat_map(|session| &session.lanes);
        let own = |lane: &&Lane| match process.role.as_str() {
            "client" => lane.via == link.name,
            _ => lane.tier == link.name,
        };
        all.filter(own).cloned().collect::<Vec<_>>()
    };
    let mut gauge = |name: &str, help: &str, unit: Option<Unit>, of: fn(&Link, &[Lane]) -> f64| {
        let family = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for link in &process.links {
            family.get_or_create(&label(link)).set(of(link, &lanes_of(link)));
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    };
    let per_second = || Some(Unit::Other("bytes_per_second".to_owned()));
    gauge("lanes", "Lanes that are up", None, |link, _| link.lanes_up as f64);
    gauge("lanes_wanted", "Lanes that a client keeps up", None, |link, _| {
        link.lanes_wanted.unwrap_or_default() as f64
    });
    gauge("link_paused", "Whether the link is paused", None, |link, _| f64::from(link.paused));
    gauge("lanes_suspect", "Lanes that owe and do not answer", None, |_, lanes| {
        lanes.iter().filter(|lane| lane.state == "suspect").count() as f64
    });
    gauge("sending", "Payload sent now", per_second(), |link, _| link.sending as f64);
    gauge("receiving", "Payload received now", per_second(), |link, _| link.receiving as f64);
    let flight = "Given to lanes and not acknowledged";
    gauge("in_flight", flight, Some(Unit::Bytes), |_, lanes| {
        lanes.iter().map(|lane| lane.in_flight_bytes as f64).sum()
    });
    let round_trip = "Mean of the lanes' smoothed round trips, queues included";
    gauge("round_trip", round_trip, Some(Unit::Seconds), |_, lanes| {
        let sum: f64 = lanes.iter().map(|lane| lane.round_trip_ms / 1e3).sum();
        sum / lanes.len().max(1) as f64
    });
}

fn label(link: &Link) -> Labels {
    vec![("link", link.name.clone())]
}
