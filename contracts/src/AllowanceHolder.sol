// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title AllowanceHolder
/// @notice The one contract that owners of swaps approve. It moves tokens for the Settlement and for nobody else.
/// @dev Kept apart from the Settlement because the Settlement calls arbitrary targets on a solver's word: if owners
/// approved the Settlement, such a call could spend their allowances. The Settlement refuses this contract as a target.
contract AllowanceHolder {
    using SafeERC20 for IERC20;

    /// @notice The contract that may pull: the Settlement that deployed this holder.
    address public immutable settlement;

    /// @notice The caller is not the Settlement.
    error OnlySettlement(address caller);

    /// @notice Binds the holder to its deployer.
    constructor() {
        settlement = msg.sender;
    }

    /// @notice Moves `amount` of `token` from an owner who approved this contract.
    /// @dev Only the Settlement, after it has verified the owner's signature for this sale. Reverts as the token does.
    /// @param token ERC-20 to move.
    /// @param from Owner of the tokens.
    /// @param to Recipient.
    /// @param amount Amount in the token's smallest unit.
    function pull(IERC20 token, address from, address to, uint256 amount) external {
        if (msg.sender != settlement) revert OnlySettlement(msg.sender);
        token.safeTransferFrom(from, to, amount);
    }
}
