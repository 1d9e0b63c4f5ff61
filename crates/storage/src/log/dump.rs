//! The log for humans.

use std::path::Path;

use rustydb_env::{Env, OpenMode};

use super::error::LogError;
use super::frame::Frame;
use super::record::{self, Record};
use super::segment::{self, SegmentEnd, SegmentHeader};

/// One line per frame of a segment file, then how it ends. Reads only; the log may be in use. Opaque bodies are
/// shown by their size and first bytes.
///
/// # Errors
/// Any error of the device; [`LogError::Corrupt`] when the header is damaged. Damage behind the header is a line
/// of the result.
pub fn dump(env: &Env, file: &Path) -> Result<Vec<String>, LogError> {
    let at_file = |error| LogError::io(file, error);
    let open = env.disk().open(file, OpenMode::Read).map_err(at_file)?;
    let mut bytes = vec![0u8; usize::try_from(open.len().map_err(at_file)?).unwrap_or(0)];
    open.read_at(0, &mut bytes).map_err(at_file)?;
    let header = SegmentHeader::decode(file, &bytes)?;
    let mut lines = vec![format!(
        "segment {} salt {:016x} size {} previous-end {}",
        header.id.0, header.salt, header.size_bytes, header.previous_end
    )];
    let walked = segment::walk(&bytes, header.seed(), |offset, frame| {
        let group = record::group_of(&frame);
        lines.push(format!("{offset:>10} batch {:<10} group {group:<6} {}", frame.batch, describe(&frame)));
        Ok::<(), LogError>(())
    })?;
    lines.push(match segment::classify(&bytes, header.seed(), walked) {
        SegmentEnd::Clean { end } => format!("{end:>10} end"),
        SegmentEnd::Torn { end, .. } => format!("{end:>10} end, old or torn bytes behind it"),
        SegmentEnd::Corrupt { offset, proof } => format!("{offset:>10} CORRUPT: {proof}"),
    });
    Ok(lines)
}

fn describe(frame: &Frame) -> String {
    let option = |position: Option<_>| {
        position.map_or_else(|| "none".to_owned(), |p: rustydb_types::position::LogPosition| p.to_string())
    };
    match Record::decode(frame) {
        None => format!("unknown kind {} of {} bytes", frame.kind, frame.body.len()),
        Some(Record::Entry { position, body }) => format!("entry {position} {}", opaque(body)),
        Some(Record::Vote(vote)) => format!("vote {}", opaque(vote)),
        Some(Record::Committed(committed)) => format!("committed {}", opaque(committed)),
        Some(Record::Truncate { keep: Some(keep) }) => format!("truncate after {keep}"),
        Some(Record::Truncate { keep: None }) => "truncate all".to_owned(),
        Some(Record::Purge { through, opaque: with }) => format!("purge through {through} {}", opaque(with)),
        Some(Record::Remove) => "remove group".to_owned(),
        Some(Record::Checkpoint(points)) => {
            let purged = points.purged.as_ref().map(|(position, _)| *position);
            let vote = points.vote.as_deref().map_or_else(|| "none".to_owned(), opaque);
            format!("checkpoint last {} purged {} vote {vote}", option(points.last), option(purged))
        }
        Some(Record::CheckpointEnd { group_count }) => format!("checkpoint end, {group_count} groups"),
        Some(Record::Close) => "closed".to_owned(),
    }
}

/// Size and the first bytes.
fn opaque(bytes: &[u8]) -> String {
    let start: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > 16 { ".." } else { "" };
    format!("[{} bytes {start}{more}]", bytes.len())
}
