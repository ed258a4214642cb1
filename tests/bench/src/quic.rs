//! quinn, with windows for long fat networks and sockets like the peer's.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Failure;
use crate::line::{Line, SMALL};

const NAME: &str = "far";
/// As large as the peer's socket buffers.
const SOCKET_BUFFER: usize = 2 << 20;
/// What may be on its way on one stream.
const WINDOW: u32 = 16 << 20;
/// First byte of a stream whose bytes come back.
const ECHO: u8 = 1;
/// First byte of a stream whose end is answered with one byte.
const SINK: u8 = 0;
/// The piece in which bulk data is handed over.
const PIECE: usize = 1 << 18;
/// The most that is read at once.
const READ: usize = 1 << 18;
/// What an Ethernet leaves to UDP over IPv4.
const PAYLOAD: u16 = 1472;

/// Echoes datagrams and streams, and swallows bulk streams, until killed. Leaves its certificate in a file.
pub(crate) async fn far(listen: SocketAddr, certificate: &Path) -> Result<(), Failure> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config = ServerConfig::with_single_cert(vec![made.cert.der().clone()], key)?;
    config.transport_config(transport());
    let endpoint = endpoint(listen, Some(config))?;
    fs::write(certificate, made.cert.der())?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        tokio::spawn(echo_datagrams(connection.clone()));
        tokio::spawn(serve_streams(connection));
    }
    Ok(())
}

async fn echo_datagrams(connection: Connection) {
    while let Ok(datagram) = connection.read_datagram().await {
        if connection.send_datagram(datagram).is_err() {
            return;
        }
    }
}

async fn serve_streams(connection: Connection) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        tokio::spawn(async move {
            // The near end goes away when it has measured.
            drop(serve_stream(send, receive).await);
        });
    }
}

async fn serve_stream(mut send: SendStream, mut receive: RecvStream) -> Result<(), Failure> {
    let mut kind = [0];
    receive.read_exact(&mut kind).await?;
    if kind == [SINK] {
        while receive.read_chunk(READ, true).await?.is_some() {}
        send.write_all(&[SINK]).await?;
        send.finish()?;
        return Ok(());
    }
    let mut messages = Messages::new(receive);
    loop {
        let message = messages.next().await?;
        send.write_all(&message).await?;
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PAYLOAD);
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(4 * WINDOW))
        .send_window(4 * u64::from(WINDOW))
        .datagram_receive_buffer_size(Some(WINDOW as usize))
        .datagram_send_buffer_size(WINDOW as usize)
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(None)
        .keep_alive_interval(Some(Duration::from_secs(15)));
    Arc::new(config)
}

fn endpoint(bind: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint, Failure> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&bind.into())?;
    let config = EndpointConfig::default();
    Ok(Endpoint::new(config, server, socket.into(), Arc::new(TokioRuntime))?)
}

/// A connection to one `far`.
pub(crate) struct Near {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Near {
    pub(crate) async fn open(far: SocketAddr, certificate: &Path) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(fs::read(certificate)?))?;
        let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
        config.transport_config(transport());
        let mut endpoint = endpoint(([0, 0, 0, 0], 0).into(), None)?;
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect(far, NAME)?.await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Sends so many bytes on one stream, and returns when the far application has them.
    pub(crate) async fn bulk(&self, bytes: usize) -> Result<(), Failure> {
        let (mut send, mut receive) = self.connection.open_bi().await?;
        send.write_all(&[SINK]).await?;
        let piece = Bytes::from(vec![SINK; PIECE]);
        for _ in 0..bytes.div_ceil(PIECE) {
            send.write_chunk(piece.clone()).await?;
        }
        send.finish()?;
        receive.read_exact(&mut [0]).await?;
        Ok(())
    }

    pub(crate) fn datagrams(&self) -> Datagrams {
        Datagrams(self.connection.clone())
    }

    pub(crate) async fn stream(&self) -> Result<Stream, Failure> {
        let (mut send, receive) = self.connection.open_bi().await?;
        send.write_all(&[ECHO]).await?;
        Ok(Stream { send, messages: Messages::new(receive) })
    }
}

/// Unreliable datagrams, one a message.
pub(crate) struct Datagrams(Connection);

impl Line for Datagrams {
    async fn send(&mut self) -> Result<(), Failure> {
        self.0.send_datagram(Bytes::from_static(&[ECHO; SMALL]))?;
        Ok(())
    }

    async fn echo(&mut self) -> Result<(), Failure> {
        self.0.read_datagram().await?;
        Ok(())
    }
}

/// One stream with messages laid end to end.
pub(crate) struct Stream {
    send: SendStream,
    messages: Messages,
}

impl Line for Stream {
    async fn send(&mut self) -> Result<(), Failure> {
        self.send.write_all(&[ECHO; SMALL]).await?;
        Ok(())
    }

    async fn echo(&mut self) -> Result<(), Failure> {
        self.messages.next().await?;
        Ok(())
    }
}

/// Takes a stream apart. Reads as much as there is, so that most messages cost no call into quinn.
struct Messages {
    receive: RecvStream,
    rest: Bytes,
}

impl Messages {
    fn new(receive: RecvStream) -> Self {
        Self { receive, rest: Bytes::new() }
    }

    async fn next(&mut self) -> Result<[u8; SMALL], Failure> {
        let mut message = [0; SMALL];
        let mut filled = 0;
        while filled < SMALL {
            if self.rest.is_empty() {
                let chunk = self.receive.read_chunk(READ, true).await?;
                self.rest = chunk.ok_or("the stream ended")?.bytes;
            }
            let take = self.rest.len().min(SMALL - filled);
            message[filled..filled + take].copy_from_slice(&self.rest.split_to(take));
            filled += take;
        }
        Ok(message)
    }
}
