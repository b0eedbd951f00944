"""Events as AWS sends them, in the fields that are read."""


def url_event(path="/", body="", method="POST", query="", headers=None, cookies=(), **more):
    """Payload format 2.0: docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "cookies": list(cookies),
        "headers": headers or {},
        "requestContext": {
            "domainName": "x.lambda-url.us-east-1.on.aws",
            "http": {"method": method, "path": path, "sourceIp": "203.0.113.7"},
        },
        "body": body,
        "isBase64Encoded": False,
        **more,
    }


def rest_event(path="/", body=None, method="GET", query=None, headers=None):
    """Payload format 1.0: docs.aws.amazon.com/apigateway, set-up-lambda-proxy-integrations.html."""
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {name: values[-1] for name, values in (headers or {}).items()},
        "multiValueHeaders": headers or {},
        "multiValueQueryStringParameters": query,
        "requestContext": {
            "httpMethod": method,
            "domainName": "x.execute-api.us-east-1.amazonaws.com",
            "identity": {"sourceIp": "203.0.113.7"},
        },
        "body": body,
        "isBase64Encoded": False,
    }


def socket_event(route, body=None, connection="c1", **more):
    """docs.aws.amazon.com/apigateway: apigateway-websocket-api-mapping-template-reference.html."""
    return {
        "requestContext": {
            "routeKey": route,
            "eventType": {"$connect": "CONNECT", "$disconnect": "DISCONNECT"}.get(route, "MESSAGE"),
            "connectionId": connection,
            "requestId": "r1",
            "domainName": "x.execute-api.us-east-1.amazonaws.com",
            "stage": "prod",
            "apiId": "x",
            **more,
        },
        "body": body,
        "isBase64Encoded": False,
    }
