//! The body of a question.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::{
    Client, ConnectRequest, PublishRequest, RefreshRequest, RpcRequest, SubscribeRequest,
};

/// All that any question says; each says a part of it.
#[derive(Debug, Serialize)]
pub(super) struct Question<'a> {
    client: &'a str,
    transport: &'a str,
    protocol: &'static str,
    encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    channels: &'a [&'a str],
}

impl<'a> Question<'a> {
    pub(super) fn connect(request: &ConnectRequest<'a>) -> Self {
        Self {
            name: request.name,
            version: request.version,
            channels: request.channels,
            ..Self::about(&request.client, request.data)
        }
    }

    pub(super) fn refresh(request: &RefreshRequest<'a>) -> Self {
        Self::of_user(&request.client, b"")
    }

    pub(super) fn subscribe(request: &SubscribeRequest<'a>) -> Self {
        Self {
            channel: Some(request.channel),
            ..Self::of_user(&request.client, request.data)
        }
    }

    pub(super) fn publish(request: &PublishRequest<'a>) -> Self {
        Self {
            channel: Some(request.channel),
            ..Self::of_user(&request.client, request.data)
        }
    }

    pub(super) fn rpc(request: &RpcRequest<'a>) -> Self {
        Self {
            method: Some(request.method),
            ..Self::of_user(&request.client, request.data)
        }
    }

    /// What is said of a client that has connected.
    fn of_user(client: &Client<'a>, data: &'a [u8]) -> Self {
        Self {
            user: Some(client.user),
            // Programs of one's own may say anything.
            meta: serde_json::from_str(client.meta).ok(),
            ..Self::about(client, data)
        }
    }

    fn about(client: &Client<'a>, data: &'a [u8]) -> Self {
        // What a client with Protobuf says may be no JSON.
        let json = serde_json::from_slice(data).ok();
        let has_bytes = json.is_none() && !data.is_empty();
        let b64data = has_bytes.then(|| STANDARD.encode(data));
        Self {
            client: client.client,
            transport: client.transport,
            protocol: client.protocol,
            encoding: if b64data.is_some() { "binary" } else { "json" },
            user: None,
            channel: None,
            method: None,
            name: "",
            version: "",
            meta: None,
            data: json,
            b64data,
            channels: &[],
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and JSON, which have been read before")
    }
}
