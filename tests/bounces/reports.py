"""Reports in the forms of common mail servers, with words of our own.

For: tests of recognition, and the fuzzer. All are about ann@example.org.
"""

ANN = "ann@example.org"
RETURNED = "Return-Path: <>\r\nMessage-ID: <post@example.com>\r\nSubject: ants\r\n"


def report(
    status: str,
    *,
    kind: str = "message/delivery-status",
    returned: str = "text/rfc822-headers",
    original: str = RETURNED,
    header: str = "",
) -> bytes:
    """A report with these fields of recipients, as RFC 3464 has it."""
    return (
        f"From: MAILER-DAEMON@mx.example.net (Mail System)\r\n{header}"
        "Subject: Undelivered\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b=1/x"\r\n\r\n'
        "Words for those who see this.\r\n\r\n"
        "--b=1/x\r\nContent-Description: Notification\r\nContent-Type: text/plain\r\n\r\n"
        "I could not deliver it.\r\n\r\n"
        f"--b=1/x\r\nContent-Description: Report\r\nContent-Type: {kind}\r\n\r\n"
        f"Reporting-MTA: dns; mx.example.net\r\nArrival-Date: Mon, 5 Jan 2026 10:00:00 +0000\r\n"
        f"\r\n{status}\r\n"
        f"--b=1/x\r\nContent-Type: {returned}\r\n\r\n{original}\r\n--b=1/x--\r\n"
    ).encode()


POSTFIX = report(
    f"Final-Recipient: rfc822; {ANN}\r\nOriginal-Recipient: rfc822;{ANN}\r\nAction: failed\r\n"
    "Status: 5.1.1\r\nRemote-MTA: dns; mx.example.org\r\n"
    f"Diagnostic-Code: smtp; 550 5.1.1 <{ANN}>: Recipient address rejected: nobody\r\n"
    "    of that name\r\n",
    header="Auto-Submitted: auto-replied\r\n",
)
EXIM = report(
    f"Action: failed\r\nFinal-Recipient: rfc822;{ANN}\r\nStatus: 5.0.0\r\n"
    "Remote-MTA: dns; mx.example.org\r\nDiagnostic-Code: smtp; 550 no such person here\r\n",
    header=f"X-Failed-Recipients: {ANN}\r\nAuto-Submitted: auto-replied\r\n",
)
OPENSMTPD = report(f"Final-Recipient: rfc822; {ANN}\r\nAction: error\r\nStatus: 5.0.0\r\n").replace(
    b"Reporting-MTA: dns; mx.example.net\r\n", b"Reporting-MTA: dns; smtpd\r\n"
)
SENDMAIL = report(
    f"Original-Recipient: rfc822;{ANN}\r\nFinal-Recipient: RFC822; annlee@inner.example.org\r\n"
    "Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: DNS; inner.example.org\r\n"
    "Diagnostic-Code: SMTP; 550 5.1.1 <annlee@inner.example.org>... User unknown\r\n"
    "Last-Attempt-Date: Mon, 5 Jan 2026 10:00:00 +0000\r\n",
    returned="message/rfc822",
)
EXCHANGE = report(
    f"Original-Recipient: rfc822;{ANN}\r\nFinal-Recipient: rfc822;{ANN}\r\nAction: failed\r\n"
    "Status: 5.1.10\r\nDiagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound;"
    " not found\r\n"
    "X-Display-Name: Ann\r\n",
    returned="message/rfc822",
)
GMAIL = report(
    f"Final-Recipient: rfc822; {ANN}\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    "Diagnostic-Code: smtp; 550-5.1.1 There is no such account. Look for\r\n"
    " 550-5.1.1 typing errors or\r\n 550 5.1.1  spaces. a1-2b - gsmtp\r\n"
    "Last-Attempt-Date: Mon, 05 Jan 2026 02:00:00 -0800 (PST)\r\n",
    header=f"X-Failed-Recipients: {ANN}\r\nAuto-Submitted: auto-replied\r\n",
    returned="message/rfc822",
)
QMAIL = (
    "From: MAILER-DAEMON@mx.example.net\r\nTo: ants-bounces@example.com\r\n"
    "Subject: failure notice\r\n\r\n"
    "Hi. This is the qmail-send program at mx.example.net.\r\n"
    "I'm afraid I wasn't able to deliver your message to the following addresses.\r\n\r\n"
    f"<{ANN}>:\r\n192.0.2.1 does not like recipient.\r\n"
    "Remote host said: 550 5.1.1 nobody here\r\nGiving up on 192.0.2.1.\r\n\r\n"
    f"--- Below this line is a copy of the message.\r\n\r\n{RETURNED}\r\nants\r\n"
).encode()
UTF8 = report(
    "Original-Recipient: utf-8; \\x{E4}nn@example.org\r\n"
    "Final-Recipient: utf-8; änn@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    "Diagnostic-Code: smtp; 550 5.1.1 kein Postfach für änn\r\n",
    kind="message/global-delivery-status",
    returned="message/global-headers",
)
DELAYED = report(
    f"Final-Recipient: rfc822; {ANN}\r\nAction: delayed\r\nStatus: 4.4.1\r\n"
    "Diagnostic-Code: X-Postfix; connect to mx.example.org[192.0.2.1]:25: timed out\r\n"
    "Will-Retry-Until: Sat, 10 Jan 2026 10:00:00 +0000\r\n",
)
DELIVERED = report(f"Final-Recipient: rfc822; {ANN}\r\nAction: relayed\r\nStatus: 2.0.0\r\n")
COMPLAINT = (
    "From: <fbl@example.net>\r\nSubject: FW: ants\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
    "--b\r\nContent-Type: text/plain\r\n\r\nA reader does not want this.\r\n\r\n"
    "--b\r\nContent-Type: message/feedback-report\r\n\r\n"
    "Feedback-Type: abuse\r\nUser-Agent: Loop/1\r\nVersion: 1\r\n"
    f"Original-Rcpt-To: <{ANN}>\r\n\r\n"
    f"--b\r\nContent-Type: message/rfc822\r\n\r\n{RETURNED}\r\nants\r\n--b--\r\n"
).encode()
RECEIPT = (
    f"From: Ann <{ANN}>\r\nSubject: Read: ants\r\nMIME-Version: 1.0\r\n"
    "Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n"
    "--b\r\nContent-Type: text/plain\r\n\r\nShe read it.\r\n\r\n"
    "--b\r\nContent-Type: message/disposition-notification\r\n\r\n"
    f"Final-Recipient: rfc822;{ANN}\r\nOriginal-Message-ID: <post@example.com>\r\n"
    "Disposition: manual-action/MDN-sent-manually; displayed\r\n\r\n--b--\r\n"
).encode()
AWAY = (
    f"From: Ann <{ANN}>\r\nSubject: Automatic reply: ants\r\n"
    "Auto-Submitted: auto-replied\r\n\r\nI am away.\r\n"
).encode()

GOOD = (POSTFIX, EXIM, OPENSMTPD, SENDMAIL, EXCHANGE, GMAIL, UTF8, DELAYED)
ALL = (*GOOD, QMAIL, DELIVERED, COMPLAINT, RECEIPT, AWAY)
