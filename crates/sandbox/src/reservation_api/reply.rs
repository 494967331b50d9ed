//! Scripted responses of the Reservation API.

use std::time::Duration;

use http::StatusCode;

use crate::script::{Lose, Refuse, Scripted};

/// A response instead of the true one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(pub(crate) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Answer(Answer),
    /// The connection is closed without a response.
    Lost,
    /// The connection is closed in the middle of the body.
    CutShort,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(String, String)>,
    /// `None` is the API's own error body.
    pub(crate) body: Option<Vec<u8>>,
}

impl Lose for Reply {
    fn lost() -> Self {
        Self(Kind::Lost)
    }
}

impl Refuse for Reply {
    fn refused(retry_after: Duration) -> Self {
        let header = ("Retry-After".to_owned(), retry_after.as_secs().to_string());
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self(Kind::Answer(Answer { status, headers: vec![header], body: None }))
    }
}

impl Scripted<Reply> {
    /// Responds with this HTTP status and the API's error body without processing the call.
    ///
    /// # Panics
    ///
    /// If it is not from 200 to 999: lower statuses are not final responses.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
        let status = status.expect("a status from 200 to 999");
        Self::replying(Reply(Kind::Answer(Answer { status, headers: Vec::new(), body: None })))
    }

    /// Processes the call, then closes the connection in the middle of the response body.
    #[must_use]
    pub fn cut_short() -> Self {
        Self::replying(Reply(Kind::CutShort)).applying()
    }

    /// Replaces the API's body, as a proxy would or with garbage.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        self.answer(|answer| answer.body = Some(body))
    }

    /// Replaces the API's error body by that of a proxy.
    #[must_use]
    pub fn without_error_body(self) -> Self {
        self.body("<html><body>upstream connect error</body></html>")
    }

    /// Adds a header, such as `Retry-After` or `Location`.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.answer(|answer| answer.headers.push((name.to_owned(), value.to_owned())))
    }

    fn answer(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        match &mut self.reply {
            Some(Reply(Kind::Answer(answer))) => change(answer),
            Some(Reply(Kind::Lost | Kind::CutShort)) | None => {
                panic!("only an answer made by `status` has headers and a body of its own")
            }
        }
        self
    }
}
