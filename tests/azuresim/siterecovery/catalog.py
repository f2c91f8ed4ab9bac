"""Microsoft's error codes of a replicated machine: symptom, cause, remedy.

Source: Microsoft's pages "Troubleshoot Mobility Service push installation", "Troubleshoot
replication issues for VMware VMs and physical servers", "Troubleshoot the process server", "Troubleshoot failover to
Azure failures", "Troubleshoot reprotect". Texts are in our words, shortened.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Known:
    """`category` as in HealthErrorCategory of the SDK; `level` Error or Warning."""

    code: str
    message: str
    causes: str
    action: str
    category: str = "Replication"
    level: str = "Error"


def _known(*entries: Known) -> dict[str, Known]:
    return {one.code: one for one in entries}


KNOWN = _known(
    Known("95107", "Push installation of the Mobility service failed: the account is invalid (Windows).",
          "The account is no administrator of the machine, or remote UAC filters its token.",
          "Use an administrator and set LocalAccountTokenFilterPolicy to 1 when it is not a domain account.",
          "Configuration"),
    Known("95108", "Push installation of the Mobility service failed: the account is invalid (Linux).",
          "The account is not root, or SFTP or password authentication is off.",
          "Use root; enable the SFTP subsystem and PasswordAuthentication in sshd_config.", "Configuration"),
    Known("95517", "Push installation failed: access denied.",
    "The account has no administrator rights on the source machine.",
          "Change the account on the configuration server.", "Configuration"),
    Known("95519", "Push installation failed: the account is disabled.", "The account is disabled.",
          "Enable the account and try again.", "Configuration"),
    Known("95520", "Push installation failed: the account is locked out.", "Too many attempts with wrong credentials.",
          "Unlock the account, correct the stored credentials and try again.", "Configuration"),
    Known("95117", "Push installation failed: the Windows machine cannot be reached.",
    "The machine is off, or a firewall or DNS is in the way.",
          "Check ping, TCP 135 and DNS from the process server.", "Configuration"),
    Known("97118", "Push installation failed: the Linux machine cannot be reached.",
    "The machine is off, or a firewall or DNS is in the way.",
          "Check ping, TCP 22 and DNS from the process server.", "Configuration"),
    Known("95105", "Push installation failed: file and printer sharing is not available (95105).",
    "SMB-In or NB-Session-In is blocked.",
          "Allow File and Printer Sharing in the firewall of the machine.", "Configuration"),
    Known("95106", "Push installation failed: file and printer sharing is not available (95106).",
    "SMB-In or NB-Session-In is blocked.",
          "Allow File and Printer Sharing in the firewall of the machine.", "Configuration"),
    Known("95103", "Push installation failed: WMI cannot be reached.", "WMI is blocked.",
          "Enable the WMI rule group in the firewall of the machine.", "Configuration"),
    Known("95320", "Push installation failed: GRUB uses device names.",
    "root= or resume= name a device instead of a UUID.",
          "Replace device names with UUIDs in the GRUB configuration.", "Configuration"),
    Known("95524", "Push installation failed: not enough disk space.", "Less than 100 MB are free on the machine.",
          "Free disk space and try again.", "Configuration"),
    Known("95572", "Push installation failed: not enough memory.", "The machine is short of memory.",
          "Free memory and try again.", "Configuration"),
    Known("78169", "Initial replication makes no progress.", "Antivirus, bandwidth, or clocks that differ.",
          "Exclude Site Recovery's folders from antivirus, check bandwidth, synchronise time."),
    Known("78188", "Data change rate is beyond the supported limits.",
    "A disk changes faster than its target disk can take, or a spike.",
          "Use a faster or larger target disk, wait for the spike to end, or exclude the disk."),
    Known("78174", "There is no heartbeat from the Mobility service of the source machine.",
    "The machine is off, or cannot reach the configuration server on 443.",
          "Check that the machine runs and reaches 443; restart svagents and the InMage Scout Application Service."),
    Known("78186", "The process server cannot be reached.", "The process server has no connection (tmansvc, 9443).",
          "Check the process server's services, port 9443, CPU, memory and free cache.", "FabricInfrastructure"),
    Known("806", "There is no heartbeat from the process server.", "tmansvc does not run, or 443 is blocked.",
          "Restart the process server's services; check its CPU, memory and free cache.", "FabricInfrastructure"),
    Known("78144", "No application-consistent recovery point is available.",
    "The VSS provider or a writer failed; on Linux customscript.sh is missing.",
          "Check VSS writers; provide customscript.sh on Linux.", level="Warning"),
    Known("161011", "No successful test failover has been done on the virtual machine.",
    "None has been done after it was replicated.",
          "Do a test failover on the virtual machine.", "TestFailover", "Warning"),
    Known("28031", "Site Recovery could not create the failed over virtual machine in Azure.",
    "A quota of the region or a policy stands in the way.",
          "Raise the quota or correct the policy, then try again.", "Configuration"),
    Known("28092", "Site Recovery could not create the network interface of the failed over virtual machine.",
    "A quota, or a policy.",
          "Raise the quota or correct the policy, then try again.", "Configuration"),
    Known("95226", "Reprotect failed: the Azure VM cannot reach the configuration server.",
    "No VPN or ExpressRoute to the on-premises site.",
          "Check the connection and try again.", "FabricInfrastructure"),
    Known("78093", "Reprotect failed: the virtual machine does not run.",
    "The virtual machine is off or has no agent connection.",
          "Start the virtual machine and its agent, then try again.", "Configuration"),
)  # fmt: skip

# "The certificate of the configuration server expires" and "last heartbeat" have no code in the pages that we have:
# the two below are [inf].
FABRIC = _known(
    Known("25012", "The configuration server has not sent a heartbeat.",
    "The server is off, or cannot reach Azure on 443.",
          "Check the configuration server and its connection.", "FabricInfrastructure"),
    Known("25015", "The certificate of the configuration server expires soon.", "It is valid for three years.",
          "Renew the certificate in Site Recovery Infrastructure > Configuration servers.", "FabricInfrastructure",
          "Warning"),
)  # fmt: skip


def health_error(code: str, at: datetime, *, entity: str = "") -> dict[str, Any]:
    """A HealthError of the SDK."""
    known = KNOWN.get(code) or FABRIC[code]
    return {
        "errorSource": "Fabric" if known.category == "FabricInfrastructure" else "Agent",
        "errorType": known.category,
        "errorLevel": known.level,
        "errorCategory": known.category,
        "errorCode": known.code,
        "summaryMessage": known.message,
        "errorMessage": known.message,
        "possibleCauses": known.causes,
        "recommendedAction": known.action,
        "creationTimeUtc": _text(at),
        "entityId": entity,
        "errorId": f"{known.code}-{entity}",
        "customerResolvability": "Allowed",
    }


def job_error(code: str, at: datetime, task: str = "", detail: str = "") -> dict[str, Any]:
    """A JobErrorDetails of the SDK."""
    known = KNOWN.get(code)
    message = (known.message if known else "") + (f" {detail}" if detail else "")
    return {
        "serviceErrorDetails": {
            "code": code,
            "message": message.strip(),
            "possibleCauses": known.causes if known else "",
            "recommendedAction": known.action if known else "",
            "activityId": "",
        },
        "errorLevel": "Error",
        "creationTime": _text(at),
        "taskId": task,
    }


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
