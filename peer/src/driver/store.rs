//! What a peer remembers, and the task that writes it down.

use std::sync::Arc;

use p2sp_proto::id::{Boot, LanSecret, NetworkId, PeerKey};
use p2sp_proto::node::Known;
use tokio::task::JoinSet;
use tracing::warn;

use crate::state::{Folder, FolderError, Memory};

/// What is remembered, and the task that writes it down.
pub(crate) struct Store {
    /// `None`: nothing goes to disk.
    folder: Option<Arc<Folder>>,
    memory: Memory,
    server: String,
    network: String,
    changed: bool,
    /// At most one write at a time.
    pub(super) writer: JoinSet<Result<(), FolderError>>,
}

impl Store {
    pub(crate) fn new(
        folder: Option<Folder>,
        memory: Memory,
        server: String,
        network: String,
    ) -> Self {
        let folder = folder.map(Arc::new);
        Self { folder, memory, server, network, changed: false, writer: JoinSet::new() }
    }

    pub(super) fn remember_server(
        &mut self,
        key: PeerKey,
        boot: Boot,
        network: Option<(NetworkId, Option<LanSecret>)>,
    ) {
        self.memory.set_server(&self.server, key, boot);
        if let Some((id, lan_secret)) = network {
            self.memory.set_network(&self.network, id, lan_secret);
        }
        self.changed = true;
    }

    pub(super) fn remember_peer(&mut self, known: Known) {
        self.memory.set_peer(&self.network, known);
        self.changed = true;
    }

    /// Starts to write unless a write is under way: its end comes back here.
    pub(super) fn write_if_changed(&mut self) {
        if !self.changed || !self.writer.is_empty() {
            return;
        }
        self.changed = false;
        if let Some(folder) = self.folder.clone() {
            let memory = self.memory.clone();
            self.writer.spawn_blocking(move || folder.remember(&memory));
        }
    }

    pub(super) async fn finish(&mut self) {
        while let Some(written) = self.writer.join_next().await {
            if let Ok(Err(error)) = written {
                warn!(%error, "state not written");
            }
            self.write_if_changed();
        }
    }
}
