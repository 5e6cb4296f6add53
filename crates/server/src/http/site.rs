//! What a connection asks: requests for inference take the short way to their handler, all others go through the router.
//!
//! ```text
//!   POST /v2/models/M[/versions/V]/infer ─▶ infer          all else, `%` in a name included ─▶ Router
//! ```
//! For one request the router looks up a pattern, copies what matched into the request and out again, and boxes the body and three
//! futures: of a small request that is as much work as reading its JSON.

use super::{BodyLimits, Front, Response, infer, numbered, others};
use crate::frontend::Backend;
use crate::metrics::Metrics;
use axum::Router;
use axum::http::{Method, Request};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The protocol over a backend, for one connection. Cheap to clone.
pub(crate) struct Site<B> {
    front: Arc<Front<B>>,
    others: TowerToHyperService<Router>,
}

impl<B: Backend> Site<B> {
    /// All of it.
    pub(crate) fn new(backend: Arc<B>, metrics: Arc<Metrics>, limits: BodyLimits) -> Site<B> {
        let front = Arc::new(Front { backend, metrics, limits });
        Site { others: TowerToHyperService::new(others(front.clone())), front }
    }
}

impl<B> Clone for Site<B> {
    fn clone(&self) -> Site<B> {
        Site { front: self.front.clone(), others: self.others.clone() }
    }
}

impl<B> std::fmt::Debug for Site<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").finish_non_exhaustive()
    }
}

impl<B: Backend> Service<Request<Incoming>> for Site<B> {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let asked = if request.method() == Method::POST { infer_path(request.uri().path()) } else { None };
        let Some((model, version)) = asked else { return Box::pin(self.others.call(request)) };
        let named = numbered(model.to_owned(), version);
        let front = self.front.clone();
        Box::pin(async move { Ok(infer(&front, named, request).await) })
    }
}

/// Model and version of a path that asks for inference and is written plainly.
fn infer_path(path: &str) -> Option<(&str, Option<&str>)> {
    let names = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
    let (model, version) = match names.split_once('/') {
        None => (names, None),
        Some((model, rest)) => (model, Some(rest.strip_prefix("versions/")?)),
    };
    let plain = |name: &str| !name.is_empty() && !name.contains(['/', '%']);
    (plain(model) && version.is_none_or(plain)).then_some((model, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_is_for_plain_paths_of_inference() {
        assert_eq!(infer_path("/v2/models/add/infer"), Some(("add", None)));
        assert_eq!(infer_path("/v2/models/add/versions/3/infer"), Some(("add", Some("3"))));
        assert_eq!(infer_path("/v2/models/versions/infer"), Some(("versions", None)));
    }

    #[test]
    fn whatever_else_a_path_says_is_the_routers_affair() {
        let others = [
            "/v2/models/infer",
            "/v2/models//infer",
            "/v2/models/add",
            "/v2/models/add/infer/",
            "/v2/models/add/versions/infer",
            "/v2/models/add/versions//infer",
            "/v2/models/add/versions/3/4/infer",
            "/v2/models/add/ready/infer",
            "/v2/models/a%2Fb/infer",
            "/v2/models/add/versions/%33/infer",
            "/v3/models/add/infer",
        ];
        assert!(others.into_iter().all(|path| infer_path(path).is_none()));
    }
}
