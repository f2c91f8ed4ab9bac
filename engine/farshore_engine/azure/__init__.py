"""Recovery to Azure: what a process server does through Resource Manager. The SDKs are imported at first use."""
