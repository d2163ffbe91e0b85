//! The body of a question.

use serde::Serialize;
use serde_json::Result;
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
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    channels: &'a [&'a str],
}

/// Fails if what should be JSON is not.
impl<'a> Question<'a> {
    pub(super) fn connect(request: &ConnectRequest<'a>) -> Result<Self> {
        Ok(Self {
            name: request.name,
            version: request.version,
            channels: request.channels,
            ..Self::about(&request.client, request.data)?
        })
    }

    pub(super) fn refresh(request: &RefreshRequest<'a>) -> Result<Self> {
        Self::of_user(&request.client, "")
    }

    pub(super) fn subscribe(request: &SubscribeRequest<'a>) -> Result<Self> {
        Ok(Self {
            channel: Some(request.channel),
            ..Self::of_user(&request.client, request.data)?
        })
    }

    pub(super) fn publish(request: &PublishRequest<'a>) -> Result<Self> {
        Ok(Self {
            channel: Some(request.channel),
            ..Self::of_user(&request.client, request.data)?
        })
    }

    pub(super) fn rpc(request: &RpcRequest<'a>) -> Result<Self> {
        Ok(Self {
            method: Some(request.method),
            ..Self::of_user(&request.client, request.data)?
        })
    }

    /// What is said of a client that has connected.
    fn of_user(client: &Client<'a>, data: &'a str) -> Result<Self> {
        Ok(Self {
            user: Some(client.user),
            meta: json(client.meta)?,
            ..Self::about(client, data)?
        })
    }

    fn about(client: &Client<'a>, data: &'a str) -> Result<Self> {
        Ok(Self {
            client: client.client,
            transport: client.transport,
            protocol: "json",
            encoding: "json",
            user: None,
            channel: None,
            method: None,
            name: "",
            version: "",
            meta: None,
            data: json(data)?,
            channels: &[],
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and JSON, which have been read before")
    }
}

/// Checks that it is JSON, so that it cannot say anything beside itself; nothing is none.
fn json(text: &str) -> Result<Option<&RawValue>> {
    match text {
        "" => Ok(None),
        text => serde_json::from_str(text).map(Some),
    }
}
