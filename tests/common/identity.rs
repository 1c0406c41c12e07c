//! A session, which the wire calls a connection: its number and its secret.

use support::http::Params;

use super::response::Response;

pub struct Identity {
    pub number: u64,
    pub connection: String,
    pub auth: String,
    /// Id of the introduction.
    pub id: u64,
}

impl Identity {
    #[track_caller]
    pub fn from_answer(answer: &Response) -> Self {
        let answer = answer.json();
        let number = answer["connection"].as_u64().expect("a connection");
        Self {
            number,
            connection: number.to_string(),
            auth: answer["auth"].as_str().expect("an auth code").to_owned(),
            id: answer["id"].as_u64().expect("an id"),
        }
    }

    /// Returns `params` with the credentials.
    pub fn and<'a>(&'a self, params: &Params<'a>) -> Vec<(&'a str, &'a str)> {
        let mut all = params.to_vec();
        all.push(("connection", &self.connection));
        all.push(("auth", &self.auth));
        all
    }
}
